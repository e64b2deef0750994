/** On which of the host's addresses node ports answer (`nodePortAddresses`). */
import { parseAddress, type Family } from '#pkg/ip/address.ts';
import { containsAddress, type Prefix } from '#pkg/ip/prefix.ts';

export interface HostAddresses {
  /** Every address of the host, canonical. */
  readonly all: readonly string[];
  /** The node's own address of the family, canonical; undefined while it is not known. */
  readonly primary: string | undefined;
}

/**
 * The addresses for one family. No CIDR of this family means all, as in kube-proxy's iptables mode;
 * a range of everything too, since it says so also for addresses that come later.
 */
export function nodePortTargets(
  admitted: 'primary' | readonly Prefix[],
  family: Family,
  host: HostAddresses,
): 'all' | readonly string[] {
  if (admitted === 'primary') return host.primary === undefined ? [] : [host.primary];
  const ranges = admitted.filter((prefix) => prefix.address.family === family);
  if (ranges.length === 0 || ranges.some((range) => range.length === 0)) return 'all';
  return host.all
    .filter((text) => ranges.some((range) => containsAddress(range, parseAddress(text))))
    .toSorted();
}

/**
 * The addresses as a list, where 'all' will not do. On loopback addresses node ports answer only
 * with `localhost`, and there in IPv4 only.
 */
export function nodePortAnswers(
  targets: ReturnType<typeof nodePortTargets>,
  family: Family,
  host: { readonly all: readonly string[]; readonly localhost: boolean },
): readonly string[] {
  const isOfFamily = (text: string): boolean => text.includes(':') === (family === 'ip6');
  const isLoopback = (text: string): boolean => text === '::1' || text.startsWith('127.');
  const withLoopback = host.localhost && family === 'ip';
  return [...(targets === 'all' ? host.all : targets)]
    .filter((text) => isOfFamily(text) && (withLoopback || !isLoopback(text)))
    .toSorted();
}

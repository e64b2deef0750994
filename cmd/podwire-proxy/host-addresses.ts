/** Notices addresses of the host that come or go: node ports are to answer on them, or no more. */
import { isDeepStrictEqual } from 'node:util';
import { formatAddress } from '#pkg/ip/address.ts';
import type { KubeClient } from '#pkg/kube/client.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { watchKernel, type KernelChange } from '#pkg/netlink/monitor.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import type { ProxyHost } from './host.ts';

export interface HostAddressesParts {
  /** The set of addresses is another one now. */
  readonly onChange: () => void;
  /** A connection from an address that is gone would be noticed only when it times out. */
  readonly client: Pick<KubeClient, 'dropFrom'>;
  readonly log: Logger;
  /** The host's own unless a test says otherwise. */
  readonly watch?: (onChange: (change: KernelChange) => void) => Promise<Disposable>;
}

/** Until disposed of. A kernel that tells nothing is no failure: each comparison looks anyway. */
export async function watchHostAddresses(
  host: Pick<ProxyHost, 'addresses'>,
  { client, log, onChange, watch = watchHost }: HostAddressesParts,
): Promise<Disposable> {
  const addresses = (): readonly string[] => [...new Set(host.addresses())].toSorted();
  let known = addresses();
  let isPending = false;
  using disposables = new DisposableStack();
  const compare = (): void => {
    if (!isPending) return;
    isPending = false;
    let now: readonly string[];
    try {
      now = addresses();
    } catch (err) {
      // No descriptor is left, say. Whoever is told looks for himself, again and again until he can.
      log.warn({ err }, 'Cannot read the addresses of this host');
      onChange();
      return;
    }
    if (isDeepStrictEqual(now, known)) return;
    log.info(
      {
        added: now.filter((address) => !known.includes(address)),
        removed: known.filter((address) => !now.includes(address)),
      },
      'Addresses of this host changed',
    );
    known = now;
    onChange();
  };
  disposables.defer(() => {
    isPending = false;
  });
  try {
    disposables.use(
      await watch((change) => {
        if (change.kind === 'address' && change.deleted && change.address !== undefined) {
          client.dropFrom(formatAddress(change.address));
        }
        // Once for all that is told together: mode ipvs itself makes thousands of addresses, and
        // Node asks the kernel for all of them each time.
        if (!isPending) queueMicrotask(compare);
        isPending = true;
      }),
    );
  } catch (err) {
    log.warn({ err }, 'Changes of host addresses will be noticed late');
  }
  return disposables.move();
}

async function watchHost(onChange: (change: KernelChange) => void): Promise<Disposable> {
  return watchKernel(await openSys(), ['address'], onChange);
}

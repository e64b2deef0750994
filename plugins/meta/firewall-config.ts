/** The firewall plugin's configuration: the reference plugin's fields and meanings. */
import { formatAddress, type Family } from '#pkg/ip/address.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import type { NetworkConfig } from '#pkg/cni/config.ts';
import { interfaceNameProblem, type Attachment } from '#pkg/cni/environment.ts';
import { fieldName, readString, unexpected, type JsonFields } from '#pkg/cni/json-fields.ts';
import type { CniRequest } from '#pkg/cni/plugin.ts';
import type { CniResult } from '#pkg/cni/result.ts';
import type { NetfilterBackend } from './netfilter-backend.ts';

export type IngressPolicy = 'open' | 'same-bridge' | 'isolated';

export interface FirewallConfig {
  /** Undefined: firewalld where it runs, else iptables where it works, else nft. */
  readonly backend: NetfilterBackend | 'firewalld' | undefined;
  /** The zone of firewalld that pods are in. */
  readonly firewalldZone: string;
  /** The chain for a person's own rules, which come before ours. */
  readonly adminChain: string;
  readonly ingressPolicy: IngressPolicy;
}

/** @throws {CniError} code 7 */
export function parseFirewallConfig({ fields }: NetworkConfig): FirewallConfig {
  return {
    backend: readBackend(fields),
    firewalldZone: nonEmpty(readString(fields, 'firewalldZone')) ?? defaultZone,
    adminChain: readAdminChain(fields),
    ingressPolicy: readIngressPolicy(fields),
  };
}

/**
 * The zone that DEL has to look at: it must work whatever else the configuration says. Undefined for
 * another backend.
 */
export function possibleZone({ fields: { values } }: NetworkConfig): string | undefined {
  const { backend, firewalldZone } = values;
  if (backend !== undefined && backend !== '' && backend !== 'firewalld') return undefined;
  return typeof firewalldZone === 'string' && firewalldZone !== '' ? firewalldZone : defaultZone;
}

const defaultZone = 'trusted';

/** What of a container's rules one family's table is to have. */
export interface FirewallWish extends Attachment {
  readonly network: string;
  readonly config: FirewallConfig;
  readonly family: Family;
  /** The container's addresses of the family. */
  readonly addresses: readonly string[];
  /** Set for a policy that tells bridges apart. */
  readonly bridge: string | undefined;
}

/** One for each family the result has an address of. */
export function firewallWishes(
  { containerId, ifName, config: { name: network } }: CniRequest,
  config: FirewallConfig,
  result: CniResult,
): readonly FirewallWish[] {
  const bridge = bridgeOf(config, result);
  return (['ip', 'ip6'] as const).flatMap((family) => {
    const addresses = result.ips
      .filter(({ address }) => address.address.family === family)
      .map(({ address }) => formatAddress(address.address));
    if (addresses.length === 0) return [];
    return [{ network, containerId, ifName, config, family, addresses, bridge }];
  });
}

function readBackend(fields: JsonFields): FirewallConfig['backend'] {
  const backend = nonEmpty(readString(fields, 'backend'));
  if (backend === undefined) return undefined;
  if (backend === 'iptables' || backend === 'nftables' || backend === 'firewalld') return backend;
  const expected = '"iptables", "nftables" or "firewalld"';
  throw unexpected(fieldName(fields, 'backend'), expected, backend);
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === '' ? undefined : text;
}

function readAdminChain(fields: JsonFields): string {
  const chain = readString(fields, 'iptablesAdminChainName') ?? '';
  if (chain === '') return 'CNI-ADMIN';
  if (/^[\w.:][\w.:-]{0,27}$/.test(chain)) return chain;
  const name = fieldName(fields, 'iptablesAdminChainName');
  throw unexpected(name, "a chain's name of at most 28 letters", chain);
}

function readIngressPolicy(fields: JsonFields): IngressPolicy {
  const policy = readString(fields, 'ingressPolicy') ?? '';
  if (policy === '') return 'open';
  if (policy === 'open' || policy === 'same-bridge' || policy === 'isolated') return policy;
  throw new CniError(cniCode.invalidConfig, `unknown ingress policy: ${JSON.stringify(policy)}`, {
    hint: `${fieldName(fields, 'ingressPolicy')}: expected "open", "same-bridge" or "isolated"`,
  });
}

/** The first interface of the result, as the bridge plugin has it. */
function bridgeOf(config: FirewallConfig, result: CniResult): string | undefined {
  if (config.ingressPolicy === 'open') return undefined;
  const name = result.interfaces[0]?.name;
  if (name !== undefined && interfaceNameProblem(name) === undefined) return name;
  throw new CniError(
    cniCode.invalidConfig,
    `interface needs to be set for ingress policy "${config.ingressPolicy}", make sure to chain "firewall" plugin with "bridge"`,
  );
}

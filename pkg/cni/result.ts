/**
 * The result of ADD, in the newest version's terms and parsed: what plugins build and read.
 * `versions.ts` reads and writes it as JSON of any version.
 */
import type { Address } from '#pkg/ip/address.ts';
import type { Prefix } from '#pkg/ip/prefix.ts';

export interface CniResult {
  readonly interfaces: readonly CniInterface[];
  readonly ips: readonly CniIp[];
  readonly routes: readonly CniRoute[];
  readonly dns: CniDns;
}

export interface CniInterface {
  readonly name: string;
  readonly mac?: string | undefined;
  readonly mtuBytes?: number | undefined;
  /** Path of the namespace the interface is in; undefined for the host's. */
  readonly sandbox?: string | undefined;
  readonly socketPath?: string | undefined;
  readonly pciId?: string | undefined;
}

export interface CniIp {
  /** With its host bits: 10.1.2.3/24. */
  readonly address: Prefix;
  readonly gateway?: Address | undefined;
  /** Index into `interfaces`; 0 is the first one, undefined is none. */
  readonly interfaceIndex?: number | undefined;
}

export interface CniRoute {
  readonly destination: Prefix;
  readonly gateway?: Address | undefined;
  readonly mtuBytes?: number | undefined;
  /** The largest TCP segment to advertise, in bytes. */
  readonly advmssBytes?: number | undefined;
  readonly priority?: number | undefined;
  /** Routing table; 0 stays 0 from plugin to plugin, though to the kernel it is the main one. */
  readonly table?: number | undefined;
  readonly scope?: number | undefined;
}

export interface CniDns {
  readonly nameservers: readonly string[];
  readonly domain?: string | undefined;
  readonly search: readonly string[];
  readonly options: readonly string[];
}

export const emptyDns: CniDns = { nameservers: [], search: [], options: [] };

/** Whether it says nothing: results then have none. */
export function isEmptyDns(dns: CniDns): boolean {
  return (
    dns.domain === undefined &&
    dns.nameservers.length + dns.search.length + dns.options.length === 0
  );
}

/** The portmap plugin's configuration: the reference plugin's fields and meanings. */
import { families, formatAddress, type Address, type Family } from '#pkg/ip/address.ts';
import { networkOf, type Prefix } from '#pkg/ip/prefix.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import { readRuntimeConfig, type NetworkConfig } from '#pkg/cni/config.ts';
import {
  fieldName,
  readAddress,
  readBoolean,
  readInteger,
  readObjects,
  readString,
  readStrings,
  unexpected,
  type JsonFields,
} from '#pkg/cni/json-fields.ts';
import type { Attachment } from '#pkg/cni/environment.ts';
import type { CniRequest } from '#pkg/cni/plugin.ts';
import type { CniResult } from '#pkg/cni/result.ts';
import type { NetfilterBackend } from './netfilter-backend.ts';

export type PortProtocol = 'tcp' | 'udp' | 'sctp';

export interface PortMapping {
  readonly hostPort: number;
  readonly containerPort: number;
  readonly protocol: PortProtocol;
  /** The host's address it is for; undefined for all of the host's. */
  readonly hostIp: Address | undefined;
}

export interface PortmapConfig {
  /** Undefined: what this host can do. */
  readonly backend: NetfilterBackend | undefined;
  /** Connections of the pod to itself and from the host's localhost get the host as source. */
  readonly snat: boolean;
  /** All connections do. */
  readonly masqAll: boolean;
  /** The bit of a packet's mark that says so. */
  readonly markBit: number;
  /** A chain of somebody else's that sets such a mark. */
  readonly externalSetMarkChain: string | undefined;
  /** Matches a packet must fulfil, in the backend's words. */
  readonly conditions: Readonly<Record<Family, readonly string[]>>;
  readonly mappings: readonly PortMapping[];
}

/** Kubernetes uses 14 and 15. */
const defaultMarkBit = 13;

/** @throws {CniError} code 7 */
export function parsePortmapConfig(config: NetworkConfig): PortmapConfig {
  const { fields } = config;
  const externalSetMarkChain = readString(fields, 'externalSetMarkChain');
  const markBit = readMarkBit(fields);
  if (externalSetMarkChain !== undefined && markBit !== undefined) {
    throw invalid('Cannot specify externalSetMarkChain and markMasqBit');
  }
  const conditions = {
    ip: readConditions(fields, 'conditionsV4'),
    ip6: readConditions(fields, 'conditionsV6'),
  };
  return {
    backend: chooseBackend(fields, conditions, externalSetMarkChain),
    snat: readBoolean(fields, 'snat') ?? true,
    masqAll: readBoolean(fields, 'masqAll') ?? false,
    markBit: markBit ?? defaultMarkBit,
    externalSetMarkChain: readChainName(fields, externalSetMarkChain),
    conditions,
    mappings: readMappings(config),
  };
}

/** What of a container's ports one family's table is to have. */
export interface PortmapWish extends Attachment {
  readonly network: string;
  readonly config: PortmapConfig;
  /** The container's address, with its subnet's length. */
  readonly target: Prefix;
}

/** One for each family the container's interface has an address of; none without mappings. */
export function portmapWishes(
  { containerId, ifName, config: { name: network } }: CniRequest,
  config: PortmapConfig,
  result: CniResult,
): readonly PortmapWish[] {
  if (config.mappings.length === 0) return [];
  return containerAddresses(result, ifName).map((target) => ({
    network,
    containerId,
    ifName,
    config,
    target,
  }));
}

/** The first address of each family. */
function containerAddresses(result: CniResult, ifName: string): readonly Prefix[] {
  const addresses: Partial<Record<Family, Prefix>> = {};
  for (const { address, interfaceIndex } of result.ips) {
    const link = interfaceIndex === undefined ? undefined : result.interfaces[interfaceIndex];
    // Addresses of the host, or of another interface.
    if (link !== undefined && (link.name !== ifName || link.sandbox === undefined)) continue;
    addresses[address.address.family] ??= address;
  }
  return families.flatMap((family) => addresses[family] ?? []);
}

/** The mappings that hold for a family: one for an address of the other family is not for it. */
export function mappingsFor(config: PortmapConfig, family: Family): readonly PortMapping[] {
  return config.mappings.filter(({ hostIp }) => hostIp === undefined || hostIp.family === family);
}

/** The host's address a mapping is only for, as text; "0.0.0.0" and "::" are all of them. */
export function specificHostIp({ hostIp }: PortMapping): string | undefined {
  return hostIp === undefined || hostIp.value === 0n ? undefined : formatAddress(hostIp);
}

/** Who gets the host as source address, as prefixes; undefined for everybody. */
export function masqueradedSources(config: PortmapConfig, target: Prefix): string[] | undefined {
  if (config.masqAll) return undefined;
  const { address, length } = networkOf(target);
  const subnet = `${formatAddress(address)}/${length}`;
  return target.address.family === 'ip' ? [subnet, '127.0.0.1/32'] : [subnet];
}

function readMarkBit(fields: JsonFields): number | undefined {
  const bit = readInteger(fields, 'markMasqBit', {
    min: Number.MIN_SAFE_INTEGER,
    max: Number.MAX_SAFE_INTEGER,
  });
  if (bit === undefined || (bit >= 0 && bit <= 31)) return bit;
  throw invalid(`MasqMarkBit must be between 0 and 31, got ${bit}`);
}

function readChainName(fields: JsonFields, chain: string | undefined): string | undefined {
  if (chain === undefined || /^[\w.:-]{1,28}$/.test(chain)) return chain;
  throw unexpected(
    fieldName(fields, 'externalSetMarkChain'),
    "a chain's name of at most 28 letters",
    chain,
  );
}

/** Words of a rule. What would end the rule, or begin a comment, cannot be among them. */
function readConditions(fields: JsonFields, key: string): readonly string[] {
  const words = readStrings(fields, key);
  const bad = words.find((word) => /[\n\0;#]/.test(word));
  if (bad === undefined) return words;
  throw unexpected(fieldName(fields, key), 'matches of one rule', bad);
}

/** Every condition of iptables starts with a hyphen or an exclamation mark, none of nft does. */
function chooseBackend(
  fields: JsonFields,
  conditions: PortmapConfig['conditions'],
  externalSetMarkChain: string | undefined,
): NetfilterBackend | undefined {
  const wanted = readString(fields, 'backend') ?? '';
  if (wanted !== '' && wanted !== 'iptables' && wanted !== 'nftables') {
    throw unexpected(fieldName(fields, 'backend'), '"iptables" or "nftables"', wanted);
  }
  const implied: readonly (readonly [string, NetfilterBackend | undefined])[] = [
    ['externalSetMarkChain', externalSetMarkChain === undefined ? undefined : 'iptables'],
    ['conditionsV4', backendOf(conditions.ip)],
    ['conditionsV6', backendOf(conditions.ip6)],
  ];
  let backend: NetfilterBackend | undefined = wanted === '' ? undefined : wanted;
  for (const [field, needed] of implied) {
    if (needed === undefined) continue;
    if (backend !== undefined && backend !== needed) {
      throw invalid(
        `${field} is for backend ${needed}, but the backend is ${backend} (backend mismatch)`,
      );
    }
    backend = needed;
  }
  return backend;
}

function backendOf([first]: readonly string[]): NetfilterBackend | undefined {
  if (first === undefined || first === '') return undefined;
  return /^[-!]/.test(first) ? 'iptables' : 'nftables';
}

function readMappings(config: NetworkConfig): readonly PortMapping[] {
  const runtime = readRuntimeConfig(config);
  if (runtime === undefined) return [];
  return readObjects(runtime, 'portMappings').map(ignoreCase).map(readMapping);
}

function readMapping(fields: JsonFields): PortMapping {
  const containerPort = readPort(fields, 'containerPort', 'container');
  const hostPort = readPort(fields, 'hostPort', 'host');
  const protocol = readString(fields, 'protocol')?.toLowerCase();
  if (protocol !== 'tcp' && protocol !== 'udp' && protocol !== 'sctp') {
    const name = fieldName(fields, 'protocol');
    throw unexpected(name, 'tcp, udp or sctp', fields.values['protocol']);
  }
  return { hostPort, containerPort, protocol, hostIp: readAddress(fields, 'hostIP') };
}

/** containerd writes HostPort, others hostPort: the reference reads both. */
function ignoreCase(fields: JsonFields): JsonFields {
  const known = ['hostPort', 'containerPort', 'protocol', 'hostIP'];
  const values: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(fields.values)) {
    const name = known.find((k) => k.toLowerCase() === key.toLowerCase());
    values[name ?? key] = value;
  }
  return { ...fields, values };
}

function readPort(fields: JsonFields, key: string, kind: string): number {
  const port = fields.values[key] ?? 0;
  if (Number.isInteger(port) && Number(port) >= 1 && Number(port) <= 65_535) return Number(port);
  throw new CniError(
    cniCode.invalidConfig,
    `Invalid ${kind} port number: ${JSON.stringify(port)}`,
    {
      hint: `${fieldName(fields, key)}: expected a number from 1 to 65535`,
    },
  );
}

function invalid(message: string): CniError {
  return new CniError(cniCode.invalidConfig, message);
}

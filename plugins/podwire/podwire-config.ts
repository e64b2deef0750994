/**
 * The configuration of `type: podwire`: its own fields, and the bridge plugin's for what that does.
 *
 *     mode          bridge | routed
 *     antiSpoofing  pods send from their own addresses only; on unless false
 *     sysctl        settings of the pod's namespace, net.* only; IFNAME stands for its interface
 *     stateDir      where attachments are remembered
 *     nodeFile      what the node daemon found out
 *     bridge, mtu, hairpinMode, ipam, dns, ... as of the bridge plugin
 */
import { join } from 'node:path';
import { families } from '#pkg/ip/address.ts';
import { formatPrefix } from '#pkg/ip/prefix.ts';
import type { NetworkConfig } from '#pkg/cni/config.ts';
import {
  fieldName,
  readBoolean,
  readInteger,
  readObject,
  readString,
  unexpected,
  type JsonFields,
} from '#pkg/cni/json-fields.ts';
import { parsePortmapConfig, type PortMapping } from '#plugins/meta/portmap-config.ts';
import type { NodeFacts } from '#plugins/node-facts.ts';
import type { PodMode } from './attachment-record.ts';

export interface PodwireConfig {
  readonly mode: PodMode;
  readonly antiSpoofing: boolean;
  readonly hostPorts: readonly PortMapping[];
  /** Paths below /proc/sys, with "IFNAME" still in them. */
  readonly sysctls: readonly SysctlSetting[];
}

export interface SysctlSetting {
  /** As the configuration names it. */
  readonly name: string;
  /** Below /proc/sys. */
  readonly path: string;
  readonly value: string;
}

/** @throws {CniError} code 7 */
export function parsePodwireConfig(config: NetworkConfig, ifName: string): PodwireConfig {
  const { fields } = config;
  return {
    mode: readMode(fields),
    antiSpoofing: readBoolean(fields, 'antiSpoofing') ?? true,
    hostPorts: distinctPorts(parsePortmapConfig(config).mappings),
    sysctls: readSysctls(fields, ifName),
  };
}

const defaultStateDir = '/var/lib/podwire';

/** The directory of the attachment store. DEL needs no more of the configuration. */
export function attachmentDirectory({ fields }: NetworkConfig): string {
  return join(nonEmpty(readString(fields, 'stateDir')) ?? defaultStateDir, 'attachments');
}

const defaultNodeFile = '/run/podwire/node.json';

/** Where the node daemon writes what it found out. */
export function nodeFilePath({ fields }: NetworkConfig): string {
  return nonEmpty(readString(fields, 'nodeFile')) ?? defaultNodeFile;
}

/**
 * The bridge plugin's configuration for this network: one address of every pod subnet, the bridge as
 * gateway and default route. What the configuration says itself comes first: `bridge`, `mtu`,
 * `hairpinMode`, and an `ipam` with ranges or a type of its own.
 */
export function bridgeConfigOf(config: NetworkConfig, facts: NodeFacts | undefined): NetworkConfig {
  const { fields } = config;
  const mtu = readInteger(fields, 'mtu', { min: 0, max: 65_535 }) ?? 0;
  return withFields(config, {
    isDefaultGateway: true,
    // A pod that reaches itself through its Service comes back by the port it left by.
    hairpinMode: true,
    ...fields.values,
    mtu: mtu === 0 ? (facts?.mtuBytes ?? 0) : mtu,
    ipam: ipamOf(readObject(fields, 'ipam'), facts),
  });
}

/** The same network, of which plugins read these fields. */
export function withFields(
  config: NetworkConfig,
  values: Readonly<Record<string, unknown>>,
): NetworkConfig {
  return { ...config, fields: { ...config.fields, values }, text: JSON.stringify(values) };
}

function readMode(fields: JsonFields): PodMode {
  const mode = readString(fields, 'mode') ?? 'bridge';
  if (mode === 'bridge' || mode === 'routed') return mode;
  throw unexpected(fieldName(fields, 'mode'), 'bridge or routed', mode);
}

/** The same port twice is one; one port that leads to two is none. */
function distinctPorts(mappings: readonly PortMapping[]): readonly PortMapping[] {
  const leadsTo = new Map<string, number>();
  return mappings.filter((mapping) => {
    const { protocol, hostPort, containerPort } = mapping;
    const ports = hostAddresses(mapping).map((address) => `${protocol} ${hostPort} ${address}`);
    const isNew = ports.some((port) => !leadsTo.has(port));
    for (const port of ports) {
      const other = leadsTo.get(port) ?? containerPort;
      if (other !== containerPort) {
        throw unexpected(
          'runtimeConfig.portMappings',
          `one container port for host port ${protocol} ${hostPort}`,
          [other, containerPort],
        );
      }
      leadsTo.set(port, containerPort);
    }
    return isNew;
  });
}

/** The host's addresses that a mapping is for; none at all is all of both families. */
function hostAddresses({ hostIp }: PortMapping): readonly string[] {
  return hostIp === undefined
    ? families.map((f) => `${f} 0`)
    : [`${hostIp.family} ${hostIp.value}`];
}

/**
 * Dots are slashes, as in sysctl(8); an interface's name may hold dots itself, so it takes its place
 * afterwards. A number as value is its text: YAML makes one of `1`.
 */
function readSysctls(fields: JsonFields, ifName: string): readonly SysctlSetting[] {
  const sysctl = readObject(fields, 'sysctl');
  return Object.entries(sysctl?.values ?? {}).map(([name, value]) => {
    const path = name.replaceAll('.', '/').replace('IFNAME', () => ifName);
    const where = `sysctl[${JSON.stringify(name)}]`;
    if (!/^net\/[^/\0]/.test(path) || path.split('/').some((s) => ['', '.', '..'].includes(s))) {
      throw unexpected(where, 'a name as net.ipv4.conf.IFNAME.log_martians', name);
    }
    if (typeof value === 'string') return { name, path, value };
    if (typeof value === 'number') return { name, path, value: String(value) };
    throw unexpected(where, 'a string', value);
  });
}

function ipamOf(ipam: JsonFields | undefined, facts: NodeFacts | undefined): object {
  const own = ipam?.values ?? {};
  const type = 'type' in own ? own['type'] : 'host-local';
  const hasRanges = 'ranges' in own || 'subnet' in own;
  if (type !== 'host-local' || hasRanges || facts === undefined) return { ...own, type };
  return { ...own, type, ranges: facts.podCidrs.map((cidr) => [{ subnet: formatPrefix(cidr) }]) };
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === '' ? undefined : text;
}

/** The bridge plugin's configuration: the reference plugin's fields and meanings. */
import { parseCniArgs } from '#pkg/cni/cni-args.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import { readArgs, readRuntimeConfig, refuseFields, type NetworkConfig } from '#pkg/cni/config.ts';
import { interfaceNameProblem } from '#pkg/cni/environment.ts';
import {
  missing,
  readBoolean,
  readInteger,
  readObject,
  readString,
  unexpected,
} from '#pkg/cni/json-fields.ts';
import type { CniRequest } from '#pkg/cni/plugin.ts';
import { isEmptyDns, type CniDns } from '#pkg/cni/result.ts';
import { parseDns } from '#pkg/cni/versions.ts';

export interface BridgeConfig {
  readonly bridge: string;
  /** The bridge has each subnet's gateway address, and the host forwards. */
  readonly isGateway: boolean;
  /** And the pod's default route goes there. */
  readonly isDefaultGateway: boolean;
  /** An IPv4 address of another subnet on the bridge is replaced, where it would be an error. */
  readonly forceAddress: boolean;
  readonly mtuBytes: number | undefined;
  readonly hairpin: boolean;
  readonly promiscuous: boolean;
  /** Pods of the bridge do not reach each other. */
  readonly portIsolation: boolean;
  /** The pod's interface stays down: a virtual machine brings it up. */
  readonly disableContainerInterface: boolean;
  readonly mac: string | undefined;
  /** Undefined: no addresses, a layer 2 network only. */
  readonly ipamType: string | undefined;
  /** Takes the place of what the IPAM plugin answers. */
  readonly dns: CniDns | undefined;
}

const notSupported = ['ipMasq', 'vlan', 'vlanTrunk', 'macspoofchk', 'enabledad'] as const;

/**
 * All of it, for ADD.
 *
 * @throws {CniError} code 2 for what this plugin does not do, 4 and 7 for what is wrong
 */
export function parseBridgeConfig(request: CniRequest): BridgeConfig {
  const { config } = request;
  const { fields } = config;
  refuseFields(fields, notSupported);
  const isDefaultGateway = readBoolean(fields, 'isDefaultGateway') ?? false;
  const parsed = {
    bridge: parseBridgeName(config),
    isGateway: isDefaultGateway || (readBoolean(fields, 'isGateway') ?? false),
    isDefaultGateway,
    forceAddress: readBoolean(fields, 'forceAddress') ?? false,
    mtuBytes: readMtu(config),
    hairpin: readBoolean(fields, 'hairpinMode') ?? false,
    promiscuous: readBoolean(fields, 'promiscMode') ?? false,
    portIsolation: readBoolean(fields, 'portIsolation') ?? false,
    disableContainerInterface: readBoolean(fields, 'disableContainerInterface') ?? false,
    mac: parseMac(request),
    ipamType: parseIpamType(config),
    dns: readDns(config),
  };
  if (parsed.hairpin && parsed.promiscuous) {
    throw invalid('cannot set hairpin mode and promiscuous mode at the same time');
  }
  if (parsed.disableContainerInterface && parsed.ipamType !== undefined) {
    throw invalid('cannot use IPAM when disableContainerInterface is set');
  }
  return parsed;
}

/** The bridge's name: "cni0" when the configuration names none. */
export function parseBridgeName(config: NetworkConfig): string {
  const bridge = readString(config.fields, 'bridge') ?? '';
  if (bridge === '') return 'cni0';
  const problem = interfaceNameProblem(bridge);
  if (problem === undefined) return bridge;
  throw unexpected('bridge', `an interface name (this one ${problem})`, bridge);
}

/** `ipam.type`; undefined without `ipam`, or with an empty one. */
export function parseIpamType(config: NetworkConfig): string | undefined {
  const ipam = readObject(config.fields, 'ipam');
  if (ipam === undefined || Object.keys(ipam.values).length === 0) return undefined;
  const type = readString(ipam, 'type') ?? '';
  if (type === '') throw missing(ipam, 'type', "an IPAM plugin's name");
  return type;
}

function readMtu(config: NetworkConfig): number | undefined {
  const mtuBytes = readInteger(config.fields, 'mtu', { min: 0, max: 65_535 });
  return mtuBytes === 0 ? undefined : mtuBytes;
}

function readDns(config: NetworkConfig): CniDns | undefined {
  const dns = parseDns(readObject(config.fields, 'dns'));
  return isEmptyDns(dns) ? undefined : dns;
}

const macText = /^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/;

/** runtimeConfig.mac before args.cni.mac before CNI_ARGS MAC. */
function parseMac(request: CniRequest): string | undefined {
  const runtime = readRuntimeConfig(request.config);
  const args = readArgs(request.config);
  const mac = [
    runtime === undefined ? undefined : readString(runtime, 'mac'),
    args === undefined ? undefined : readString(args, 'mac'),
    parseCniArgs(request.args, ['MAC']).MAC,
  ]
    .find((text) => text !== undefined && text !== '')
    ?.toLowerCase();
  if (mac === undefined) return undefined;
  // The lowest bit of the first byte is a group's address: no interface can have one.
  if (macText.test(mac) && Number.parseInt(mac.slice(0, 2), 16) % 2 === 0) return mac;
  throw unexpected('mac', 'a MAC address as c2:11:22:33:44:55', mac);
}

function invalid(state: string): CniError {
  return new CniError(cniCode.invalidConfig, `Cannot use bridge configuration: ${state}`);
}

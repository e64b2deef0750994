/** The bridge plugin's configuration: the reference plugin's fields and meanings. */
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import type { NetworkConfig } from '#pkg/cni/config.ts';
import { interfaceNameProblem } from '#pkg/cni/environment.ts';
import {
  readBoolean,
  readInteger,
  readObjects,
  readString,
  unexpected,
} from '#pkg/cni/json-fields.ts';
import type { CniRequest } from '#pkg/cni/plugin.ts';
import type { CniDns } from '#pkg/cni/result.ts';
import type { VlanRange } from '#pkg/netlink/bridge-vlan.ts';
import { parseMasquerade, type MasqueradeConfig } from './ip-masquerade.ts';
import { parseIpamType, readDns } from './ipam.ts';
import { parseMac } from './pod-mac.ts';

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
  /** What the pod sends beyond its subnet gets the host's address. */
  readonly masquerade: MasqueradeConfig | undefined;
  /** Frames with another source MAC than the pod's are dropped. */
  readonly macSpoofCheck: boolean;
  /** IPv6 addresses are used only once nobody else is found to have them. */
  readonly duplicateAddressDetection: boolean;
  /** The VLAN the pod is in, without knowing. */
  readonly vlan: number | undefined;
  /** VLANs whose frames the pod gets and sends with their tags. */
  readonly vlanTrunk: readonly VlanRange[];
  /** The pod stays in the bridge's default VLAN too. */
  readonly preserveDefaultVlan: boolean;
  readonly mac: string | undefined;
  /** Undefined: no addresses, a layer 2 network only. */
  readonly ipamType: string | undefined;
  /** Takes the place of what the IPAM plugin answers. */
  readonly dns: CniDns | undefined;
}

/**
 * All of it, for ADD.
 *
 * @throws {CniError} code 4 and 7
 */
export function parseBridgeConfig(request: CniRequest): BridgeConfig {
  const { config } = request;
  const { fields } = config;
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
    masquerade: parseMasquerade(config),
    macSpoofCheck: readBoolean(fields, 'macspoofchk') ?? false,
    duplicateAddressDetection: readBoolean(fields, 'enabledad') ?? false,
    vlan: readVlan(config),
    vlanTrunk: readTrunk(config),
    // As the reference has it: a port of a VLAN is in the default one too unless told otherwise.
    preserveDefaultVlan: readBoolean(fields, 'preserveDefaultVlan') ?? true,
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
  if (parsed.vlan !== undefined && parsed.vlanTrunk.length > 0) {
    throw invalid('cannot set vlan and vlanTrunk at the same time');
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

/** 0 is none. */
function readVlan({ fields }: NetworkConfig): number | undefined {
  const vlan = readInteger(fields, 'vlan', { min: 0, max: 4094 });
  return vlan === 0 ? undefined : vlan;
}

function readMtu(config: NetworkConfig): number | undefined {
  const mtuBytes = readInteger(config.fields, 'mtu', { min: 0, max: 65_535 });
  return mtuBytes === 0 ? undefined : mtuBytes;
}

/** `vlanTrunk`: VLANs one by one as `id`, or from `minID` to `maxID`. */
function readTrunk({ fields }: NetworkConfig): readonly VlanRange[] {
  return readObjects(fields, 'vlanTrunk').flatMap((item) => {
    const id = (key: string): number | undefined => readInteger(item, key, { min: 1, max: 4094 });
    const [single, first, last] = [id('id'), id('minID'), id('maxID')];
    if ((first === undefined) !== (last === undefined)) {
      const name = first === undefined ? 'minID' : 'maxID';
      throw invalid(`minID and maxID should be configured simultaneously, ${name} is missing`);
    }
    if (first !== undefined && last !== undefined && first > last) {
      throw invalid('minID is greater than maxID in trunk parameter');
    }
    return [
      ...(first === undefined || last === undefined ? [] : [{ first, last }]),
      ...(single === undefined ? [] : [{ first: single, last: single }]),
    ];
  });
}

function invalid(state: string): CniError {
  return new CniError(cniCode.invalidConfig, `Cannot use bridge configuration: ${state}`);
}

/** The tuning plugin's configuration: the reference plugin's fields and meanings. */
import { parseCniArgs } from '#pkg/cni/cni-args.ts';
import { readArgs, readRuntimeConfig } from '#pkg/cni/config.ts';
import {
  fieldName,
  readBoolean,
  readInteger,
  readObject,
  readString,
  unexpected,
  type JsonFields,
} from '#pkg/cni/json-fields.ts';
import type { CniRequest } from '#pkg/cni/plugin.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import { repeatedKey } from './repeated-key.ts';

export interface TuningConfig {
  readonly sysctls: readonly Sysctl[];
  /** Undefined leaves what is there, as in all of these. */
  readonly mac: string | undefined;
  readonly promiscuous: true | undefined;
  readonly mtuBytes: number | undefined;
  readonly txQueueLength: number | undefined;
  readonly allMulticast: boolean | undefined;
}

export interface Sysctl {
  /** As configured: "net.ipv4.conf.IFNAME.log_martians". */
  readonly key: string;
  /** Below /proc/sys: "net/ipv4/conf/eth0/log_martians". */
  readonly path: string;
  readonly value: string;
}

/** args.cni comes before runtimeConfig before CNI_ARGS before the configuration itself. */
export function parseTuningConfig(request: CniRequest): TuningConfig {
  const { fields, text } = request.config;
  const args = readArgs(request.config) ?? { values: {}, path: 'args.cni' };
  const runtime = readRuntimeConfig(request.config) ?? { values: {}, path: 'runtimeConfig' };
  const sources = [args, fields];
  const first = <T>(read: (source: JsonFields) => T | undefined): T | undefined =>
    sources.map(read).find((value) => value !== undefined);
  const mtuBytes = first((source) => readInteger(source, 'mtu', { min: 0, max: maxInt32 }));
  const promiscuous = first((source) => readBoolean(source, 'promisc'));
  return {
    sysctls: readSysctls([fields, args], request.ifName, text),
    mac: readMac([
      readString(args, 'mac'),
      readString(runtime, 'mac'),
      parseCniArgs(request.args, ['MAC']).MAC,
      readString(fields, 'mac'),
    ]),
    promiscuous: promiscuous === true ? true : undefined,
    mtuBytes: mtuBytes === 0 ? undefined : mtuBytes,
    txQueueLength: first((source) => readInteger(source, 'txQLen', { min: 0, max: maxInt32 })),
    allMulticast: first((source) => readBoolean(source, 'allmulti')),
  };
}

/** Where what the interface was before is kept until DEL. */
export function tuningDataDir({ config }: CniRequest): string {
  const directory = readString(config.fields, 'dataDir') ?? '';
  return directory === '' ? '/run/cni/tuning' : directory;
}

/** What the kernel takes for an MTU or a queue's length is less; it says so itself. */
const maxInt32 = 0x7fff_ffff;

function readMac(candidates: readonly (string | undefined)[]): string | undefined {
  const mac = candidates.find((text) => text !== undefined && text !== '')?.toLowerCase();
  if (mac === undefined || /^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/.test(mac)) return mac;
  throw unexpected('mac', 'a MAC address as c2:11:22:33:44:55', mac);
}

function readSysctls(
  sources: readonly JsonFields[],
  ifName: string,
  text: string,
): readonly Sysctl[] {
  const sysctls: Sysctl[] = [];
  for (const source of sources) {
    const map = readObject(source, 'sysctl');
    if (map === undefined) continue;
    const repeated = repeatedKey(text, map.path);
    if (repeated !== undefined) throw duplicate(map, repeated);
    for (const key of Object.keys(map.values)) {
      const value = readString(map, key);
      if (value === undefined) throw unexpected(fieldName(map, key), 'a string', null);
      const path = sysctlPath(key, ifName);
      if (sysctls.some((other) => other.path === path)) throw duplicate(map, key);
      sysctls.push({ key, path, value });
    }
  }
  return sysctls;
}

/**
 * Dots are slashes, and the first IFNAME is the interface: in this order, since names of interfaces
 * may have dots.
 */
function sysctlPath(key: string, ifName: string): string {
  const path = key.replaceAll('.', '/').replace('IFNAME', () => ifName);
  const segments = path.split('/');
  const escapes = segments.some((segment) => ['', '.', '..'].includes(segment));
  if (segments[0] === 'net' && segments.length > 1 && !escapes) return path;
  throw new CniError(cniCode.invalidConfig, `invalid net sysctl key: ${JSON.stringify(key)}`, {
    hint: 'sysctl: expected names that start with net.',
  });
}

function duplicate(map: JsonFields, key: string): CniError {
  return new CniError(
    cniCode.invalidConfig,
    `Cannot read configuration field "${map.path}": duplicated entry ${JSON.stringify(key)}`,
  );
}

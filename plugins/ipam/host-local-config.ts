/** host-local's part of a network configuration, `ipam`, and what is asked for one container. */
import { formatAddress, tryParseAddress, type Address, type Family } from '#pkg/ip/address.ts';
import { familyOf, tryParsePrefix } from '#pkg/ip/prefix.ts';
import { parseCniArgs } from '#pkg/cni/cni-args.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import { readArgs, readRuntimeConfig, type NetworkConfig } from '#pkg/cni/config.ts';
import {
  fieldName,
  fieldsOf,
  missing,
  readArray,
  readInteger,
  readObject,
  readObjects,
  readString,
  readStrings,
  unexpected,
  type JsonFields,
} from '#pkg/cni/json-fields.ts';
import type { CniRequest } from '#pkg/cni/plugin.ts';
import type { CniRoute } from '#pkg/cni/result.ts';
import { isAtLeast, parseRoute } from '#pkg/cni/versions.ts';
import { checkRangeSets, parseRange, type RangeSet } from './address-range.ts';

export interface HostLocalConfig {
  readonly dataDir: string;
  readonly rangeSets: readonly RangeSet[];
  readonly routes: readonly CniRoute[];
  /** A resolv.conf whose name servers go into the result. */
  readonly resolvConf: string | undefined;
  /** Addresses asked for by name; each must come from one of the sets. */
  readonly requested: readonly Address[];
}

/**
 * How long an address rests before it is given out again, unless no other is free. Our own field:
 * Go's plugin does not read it. DEL must work with any configuration, so only ADD refuses a wrong one.
 */
export function parseRestMs(config: NetworkConfig): number {
  const seconds = ipamFields(config).values['cooldownSeconds'];
  return (typeof seconds === 'number' && seconds >= 0 ? seconds : defaultCooldownSeconds) * 1000;
}

const defaultCooldownSeconds = 60;

const defaultDataDir = '/var/lib/cni/networks';

/**
 * The whole configuration, for ADD. Ranges come from runtimeConfig.ipRanges, then from
 * `ipam.subnet` (the oldest form), then from `ipam.ranges`; requested addresses from CNI_ARGS,
 * args.cni.ips and runtimeConfig.ips, all of them.
 *
 * @throws {CniError} code 4 or 7
 */
export function parseHostLocalConfig(request: CniRequest): HostLocalConfig {
  const { config } = request;
  const ipam = ipamFields(config);
  const rangeSets = parseRangeSets(config, ipam);
  checkRangeSets(rangeSets);
  checkFamilies(config, rangeSets);
  const resolvConf = readString(ipam, 'resolvConf');
  readInteger(ipam, 'cooldownSeconds', { min: 0, max: 86_400 });
  return {
    dataDir: parseDataDir(config),
    rangeSets,
    routes: readObjects(ipam, 'routes').map(parseRoute),
    resolvConf: resolvConf === '' ? undefined : resolvConf,
    requested: parseRequested(request),
  };
}

/** All that DEL, CHECK and GC need: they must work when the ranges have become wrong. */
export function parseDataDir(config: NetworkConfig): string {
  const dataDir = readString(ipamFields(config), 'dataDir') ?? '';
  return dataDir === '' ? defaultDataDir : dataDir;
}

function ipamFields(config: NetworkConfig): JsonFields {
  const ipam = readObject(config.fields, 'ipam');
  if (ipam === undefined) throw missing(config.fields, 'ipam', 'an object');
  return ipam;
}

function parseRangeSets(config: NetworkConfig, ipam: JsonFields): readonly RangeSet[] {
  const runtime = readRuntimeConfig(config);
  const sets = [
    ...(runtime === undefined ? [] : readRangeSets(runtime, 'ipRanges')),
    ...((readString(ipam, 'subnet') ?? '') === '' ? [] : [[parseRange(ipam)]]),
    ...readRangeSets(ipam, 'ranges'),
  ];
  if (sets.length > 0) return sets;
  throw missing(ipam, 'ranges', 'at least one range');
}

function readRangeSets(fields: JsonFields, key: string): readonly RangeSet[] {
  return readArray(fields, key).map((set, i) => {
    const path = `${fieldName(fields, key)}[${i}]`;
    if (!Array.isArray(set)) throw unexpected(path, 'an array of ranges', set);
    return set.map((range: unknown, j) => parseRange(fieldsOf(range, `${path}[${j}]`)));
  });
}

/** Results before 0.3.0 have room for one address a family. */
function checkFamilies(config: NetworkConfig, sets: readonly RangeSet[]): void {
  if (isAtLeast(config.cniVersion, '0.3.0')) return;
  const seen = new Set<Family>();
  for (const [first] of sets) {
    if (first === undefined) continue;
    const family = familyOf(first.subnet);
    if (seen.has(family)) {
      throw new CniError(
        cniCode.invalidConfig,
        `CNI version ${config.cniVersion} does not support more than 1 address per family`,
      );
    }
    seen.add(family);
  }
}

function parseRequested(request: CniRequest): readonly Address[] {
  const { IP } = parseCniArgs(request.args, ['IP']);
  const args = readArgs(request.config);
  const runtime = readRuntimeConfig(request.config);
  const texts = [
    ...(IP === undefined || IP === '' ? [] : [['CNI_ARGS IP', IP] as const]),
    ...namedStrings(args, 'ips'),
    ...namedStrings(runtime, 'ips'),
  ];
  const byText = new Map<string, Address>();
  for (const [name, text] of texts) {
    const address = tryParsePrefix(text)?.address ?? tryParseAddress(text);
    if (address === undefined) throw unexpected(name, 'an IP address', text);
    byText.set(formatAddress(address), address);
  }
  return [...byText.values()];
}

function namedStrings(
  fields: JsonFields | undefined,
  key: string,
): readonly (readonly [string, string])[] {
  if (fields === undefined) return [];
  return readStrings(fields, key).map((text) => [fieldName(fields, key), text] as const);
}

/** The static IPAM plugin's configuration: the reference plugin's fields and meanings. */
import { tryParseAddress, type Address } from '#pkg/ip/address.ts';
import { containsAddress, formatPrefix, tryParsePrefix, type Prefix } from '#pkg/ip/prefix.ts';
import { parseCniArgs } from '#pkg/cni/cni-args.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import { readArgs, readRuntimeConfig } from '#pkg/cni/config.ts';
import {
  fieldName,
  missing,
  readAddress,
  readObject,
  readObjects,
  readString,
  readStrings,
  type JsonFields,
} from '#pkg/cni/json-fields.ts';
import type { CniRequest } from '#pkg/cni/plugin.ts';
import type { CniIp, CniResult } from '#pkg/cni/result.ts';
import { isAtLeast, parseDns, parseRoute } from '#pkg/cni/versions.ts';

/**
 * The answer to ADD. Addresses of the configuration and of CNI_ARGS IP add up; args.cni.ips takes
 * the place of both, and runtimeConfig.ips that of all.
 *
 * @throws {CniError} code 4 and 7
 */
export function parseStatic(request: CniRequest): CniResult {
  const { config } = request;
  const ipam = readObject(config.fields, 'ipam');
  if (ipam === undefined) throw missing(config.fields, 'ipam', 'an object');
  const runtime = readRuntimeConfig(config);
  const args = readArgs(config);
  const ips =
    (runtime && readIps(runtime)) ??
    (args && readIps(args)) ??
    withEnvironment(readObjects(ipam, 'addresses').map(readEntry), request.args);
  checkCount(ips, request);
  return {
    interfaces: [],
    ips,
    routes: readObjects(ipam, 'routes').map(parseRoute),
    dns: parseDns(readObject(ipam, 'dns')),
  };
}

function readEntry(entry: JsonFields): CniIp {
  const name = fieldName(entry, 'address');
  const address = parseCidr(readString(entry, 'address') ?? '', `the "${name}" field`);
  const gateway = readAddress(entry, 'gateway');
  if (gateway === undefined) return { address };
  if (gateway.family !== address.address.family) {
    throw missing(entry, 'gateway', `an address of the family of ${formatPrefix(address)}`);
  }
  return { address, gateway };
}

/** `ips` of args.cni or runtimeConfig; undefined when there are none. */
function readIps(fields: JsonFields): readonly CniIp[] | undefined {
  const ips = readStrings(fields, 'ips');
  const what = `an entry in the "${fieldName(fields, 'ips')}" field`;
  return ips.length === 0 ? undefined : ips.map((text) => ({ address: parseCidr(text, what) }));
}

/** IP=10.1.1.1/24,fd00::1/64;GATEWAY=10.1.1.254,fd00::fe */
function withEnvironment(ips: readonly CniIp[], text: string): readonly CniIp[] {
  const { IP = '', GATEWAY = '' } = parseCniArgs(text, ['IP', 'GATEWAY']);
  const all = [
    ...ips,
    ...splitList(IP).map((item) => ({ address: parseCidr(item, 'the "IP" in CNI_ARGS') })),
  ];
  const gateways = splitList(GATEWAY).map(parseGateway);
  return all.map((ip) => {
    // Each gateway is that of the subnets it lies in; of several, the last.
    const gateway = gateways.findLast((candidate) => containsAddress(ip.address, candidate));
    return gateway === undefined ? ip : { ...ip, gateway };
  });
}

function splitList(text: string): string[] {
  return text === '' ? [] : text.split(',').map((item) => item.trim());
}

function parseCidr(text: string, what: string): Prefix {
  const prefix = tryParsePrefix(text);
  if (prefix !== undefined) return prefix;
  throw new CniError(
    cniCode.invalidConfig,
    `${what} is expected to be in CIDR notation, got: '${text}'`,
  );
}

function parseGateway(text: string): Address {
  const address = tryParseAddress(text);
  if (address !== undefined) return address;
  throw new CniError(cniCode.invalidEnvironment, `invalid gateway address: ${text}`);
}

/** Results before 0.3.0 have room for one address of each family. */
function checkCount(ips: readonly CniIp[], { config }: CniRequest): void {
  if (isAtLeast(config.cniVersion, '0.3.0')) return;
  const families = ips.map(({ address }) => address.address.family);
  if (new Set(families).size === families.length) return;
  throw new CniError(
    cniCode.invalidConfig,
    `CNI version ${config.cniVersion} does not support more than 1 address per family`,
  );
}

/**
 * Results as JSON of every version of the specification, both ways. What a version has no place
 * for is left out; what it needs and the result lacks is an error.
 */
import { families, formatAddress, type Family } from '#pkg/ip/address.ts';
import { familyOf, formatPrefix } from '#pkg/ip/prefix.ts';
import { CniError, cniCode } from './cni-error.ts';
import {
  fieldsOf,
  missing,
  readAddress,
  readInteger,
  readObject,
  readObjects,
  readPrefix,
  readString,
  readStrings,
  type JsonFields,
} from './json-fields.ts';
import {
  emptyDns,
  isEmptyDns,
  type CniDns,
  type CniInterface,
  type CniIp,
  type CniResult,
  type CniRoute,
} from './result.ts';

/** Every version we speak, oldest first. */
export const cniVersions = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;

export type CniVersion = (typeof cniVersions)[number];

export const newestCniVersion: CniVersion = '1.1.0';

/** Whether we speak this version. */
export function isCniVersion(text: string): text is CniVersion {
  return cniVersions.some((version) => version === text);
}

/** Whether `version` is `floor` or newer. */
export function isAtLeast(version: CniVersion, floor: CniVersion): boolean {
  return cniVersions.indexOf(version) >= cniVersions.indexOf(floor);
}

/** What a configuration or result says of its version; undefined when that is nothing, or "". */
export function readVersion(fields: JsonFields): string | undefined {
  const version = readString(fields, 'cniVersion');
  return version === '' ? undefined : version;
}

/**
 * The result as a document of `version`.
 *
 * @throws {CniError} code 1 when 0.1.0 or 0.2.0 is asked for and there is no address
 */
export function formatResult(result: CniResult, version: CniVersion): object {
  if (!isAtLeast(version, '0.3.0')) return formatLegacyResult(result, version);
  const latest = isAtLeast(version, '1.1.0');
  const { interfaces, ips, routes, dns } = result;
  return {
    cniVersion: version,
    ...(interfaces.length === 0
      ? {}
      : { interfaces: interfaces.map((i) => formatInterface(i, latest)) }),
    ...(ips.length === 0
      ? {}
      : { ips: ips.map((ip) => formatIp(ip, !isAtLeast(version, '1.0.0'))) }),
    ...(routes.length === 0 ? {} : { routes: routes.map(formatRoute) }),
    // Readers of the old versions take its absence for an error in places.
    ...(isEmptyDns(dns) && isAtLeast(version, '1.0.0') ? {} : { dns: formatDns(dns) }),
  };
}

/**
 * Reads a result of any version; without a `cniVersion` of its own it has `fallbackVersion`, the
 * configuration's. `path` is where it stands, for messages.
 *
 * @throws {CniError} code 1 for a version we do not speak, code 7 for anything malformed
 */
export function parseResult(
  json: unknown,
  fallbackVersion: CniVersion,
  path = 'prevResult',
): CniResult {
  const fields = fieldsOf(json, path);
  const version = readVersion(fields) ?? fallbackVersion;
  if (!isCniVersion(version)) {
    throw new CniError(
      cniCode.incompatibleVersion,
      `Cannot read ${path}: unknown version "${version}"`,
      { hint: `supported versions are ${cniVersions.join(', ')}` },
    );
  }
  const dns = parseDns(readObject(fields, 'dns'));
  if (!isAtLeast(version, '0.3.0')) return { ...parseLegacyAddresses(fields), dns };
  return {
    interfaces: readObjects(fields, 'interfaces').map(parseInterface),
    ips: readObjects(fields, 'ips').map(parseIp),
    routes: readObjects(fields, 'routes').map(parseRoute),
    dns,
  };
}

/** A `dns` object, of a result or of a configuration. */
export function parseDns(fields: JsonFields | undefined): CniDns {
  if (fields === undefined) return emptyDns;
  const domain = readString(fields, 'domain');
  return {
    nameservers: readStrings(fields, 'nameservers'),
    domain: domain === '' ? undefined : domain,
    search: readStrings(fields, 'search'),
    options: readStrings(fields, 'options'),
  };
}

/** A route of a result or of an IPAM configuration. */
export function parseRoute(fields: JsonFields): CniRoute {
  const destination = readPrefix(fields, 'dst');
  if (destination === undefined) throw missing(fields, 'dst', 'address/length as 0.0.0.0/0');
  const u32 = { min: 0, max: 0xffff_ffff };
  return {
    destination,
    gateway: readAddress(fields, 'gw'),
    mtuBytes: readInteger(fields, 'mtu', u32),
    advmssBytes: readInteger(fields, 'advmss', u32),
    priority: readInteger(fields, 'priority', u32),
    table: readInteger(fields, 'table', u32),
    scope: readInteger(fields, 'scope', { min: 0, max: 255 }),
  };
}

/** 0.1.0 and 0.2.0 hold one address a family, each with the routes of its family. */
function formatLegacyResult(result: CniResult, version: CniVersion): object {
  const perFamily = families.map((family) => formatLegacyFamily(result, family));
  if (perFamily.every((entry) => entry === undefined)) {
    throw new CniError(
      cniCode.incompatibleVersion,
      `Cannot convert the result to version ${version}: no valid IP addresses`,
    );
  }
  const [ip4, ip6] = perFamily;
  return {
    cniVersion: version,
    ...(ip4 === undefined ? {} : { ip4 }),
    ...(ip6 === undefined ? {} : { ip6 }),
    dns: formatDns(result.dns),
  };
}

function formatLegacyFamily(result: CniResult, family: Family): object | undefined {
  const ip = result.ips.find((candidate) => familyOf(candidate.address) === family);
  if (ip === undefined) return undefined;
  const routes = result.routes.filter((route) => familyOf(route.destination) === family);
  return {
    ip: formatPrefix(ip.address),
    ...(ip.gateway === undefined ? {} : { gateway: formatAddress(ip.gateway) }),
    ...(routes.length === 0 ? {} : { routes: routes.map(formatRoute) }),
  };
}

function parseLegacyAddresses(
  fields: JsonFields,
): Pick<CniResult, 'interfaces' | 'ips' | 'routes'> {
  const ips: CniIp[] = [];
  const routes: CniRoute[] = [];
  for (const key of ['ip4', 'ip6']) {
    const entry = readObject(fields, key);
    if (entry === undefined) continue;
    const address = readPrefix(entry, 'ip');
    if (address === undefined) throw missing(entry, 'ip', 'address/length as 10.1.2.3/24');
    ips.push({ address, gateway: readAddress(entry, 'gateway') });
    routes.push(...readObjects(entry, 'routes').map(parseRoute));
  }
  return { interfaces: [], ips, routes };
}

function formatInterface(link: CniInterface, latest: boolean): object {
  return {
    name: link.name,
    ...(link.mac === undefined ? {} : { mac: link.mac }),
    ...(latest && link.mtuBytes !== undefined ? { mtu: link.mtuBytes } : {}),
    ...(link.sandbox === undefined ? {} : { sandbox: link.sandbox }),
    ...(latest && link.socketPath !== undefined ? { socketPath: link.socketPath } : {}),
    ...(latest && link.pciId !== undefined ? { pciID: link.pciId } : {}),
  };
}

function parseInterface(fields: JsonFields): CniInterface {
  const name = readString(fields, 'name');
  if (name === undefined) throw missing(fields, 'name', "an interface's name");
  const text = (key: string): string | undefined => {
    const value = readString(fields, key);
    return value === '' ? undefined : value;
  };
  return {
    name,
    mac: text('mac'),
    mtuBytes: readInteger(fields, 'mtu', { min: 0, max: 0xffff_ffff }),
    sandbox: text('sandbox'),
    socketPath: text('socketPath'),
    pciId: text('pciID'),
  };
}

function formatIp(ip: CniIp, withVersion: boolean): object {
  return {
    ...(withVersion ? { version: familyOf(ip.address) === 'ip' ? '4' : '6' } : {}),
    ...(ip.interfaceIndex === undefined ? {} : { interface: ip.interfaceIndex }),
    address: formatPrefix(ip.address),
    ...(ip.gateway === undefined ? {} : { gateway: formatAddress(ip.gateway) }),
  };
}

function parseIp(fields: JsonFields): CniIp {
  const address = readPrefix(fields, 'address');
  if (address === undefined) throw missing(fields, 'address', 'address/length as 10.1.2.3/24');
  return {
    address,
    gateway: readAddress(fields, 'gateway'),
    interfaceIndex: readInteger(fields, 'interface', { min: 0, max: 0x7fff_ffff }),
  };
}

function formatRoute(route: CniRoute): object {
  const { gateway, mtuBytes, advmssBytes, priority, table, scope } = route;
  return {
    dst: formatPrefix(route.destination),
    ...(gateway === undefined ? {} : { gw: formatAddress(gateway) }),
    ...(mtuBytes === undefined ? {} : { mtu: mtuBytes }),
    ...(advmssBytes === undefined ? {} : { advmss: advmssBytes }),
    ...(priority === undefined ? {} : { priority }),
    ...(table === undefined ? {} : { table }),
    ...(scope === undefined ? {} : { scope }),
  };
}

function formatDns(dns: CniDns): object {
  return {
    ...(dns.nameservers.length === 0 ? {} : { nameservers: dns.nameservers }),
    ...(dns.domain === undefined ? {} : { domain: dns.domain }),
    ...(dns.search.length === 0 ? {} : { search: dns.search }),
    ...(dns.options.length === 0 ? {} : { options: dns.options }),
  };
}

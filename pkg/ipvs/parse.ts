/** Reads what ipvsadm prints. */
import { formatAddress, tryParseAddress } from '#pkg/ip/address.ts';
import {
  endpointText,
  serverKey,
  type IpvsProtocol,
  type RealServer,
  type VirtualServer,
} from './virtual-server.ts';

/** The virtual servers of `ipvsadm --save --numeric`, by key; those by firewall mark are not ours. */
export function parseIpvsSave(text: string): Map<string, VirtualServer> {
  const servers = new Map<string, VirtualServer & { realServers: RealServer[] }>();
  for (const line of text.split('\n')) {
    const words = line.trim().split(/\s+/);
    const protocol = protocols.get(words[1] ?? '');
    const at = endpointOf(words[2]);
    if (protocol === undefined || at === undefined) continue;
    const options = optionsOf(words.slice(3));
    const key = serverKey({ protocol, ...at });
    if (words[0] === '-A') {
      servers.set(key, {
        family: at.address.includes(':') ? 'ip6' : 'ip',
        protocol,
        ...at,
        scheduler: options.take('-s') ?? '',
        flags: options.take('-b') ?? '',
        persistenceSeconds: Number(options.take('-p') ?? 0),
        realServers: [],
        ...options.rest(),
      });
    } else if (words[0] === '-a') {
      const real = endpointOf(options.take('-r'));
      const weight = Number(options.take('-w') ?? 1);
      options.take('-m');
      const found = { weight, ...options.rest() };
      if (real !== undefined) servers.get(key)?.realServers.push({ ...real, ...found });
    }
  }
  return servers;
}

interface Options {
  /** The value of an option, which is then spoken of no more; '' when it has none. */
  take(name: string): string | undefined;
  rest(): Pick<VirtualServer, 'foreign'>;
}

function optionsOf(words: readonly string[]): Options {
  const left = [...words];
  return {
    take: (name) => {
      const i = left.indexOf(name);
      if (i < 0) return undefined;
      const value = left[i + 1];
      const hasValue = value !== undefined && !value.startsWith('-');
      left.splice(i, hasValue ? 2 : 1);
      return hasValue ? value : '';
    },
    rest: () => (left.length === 0 ? {} : { foreign: left.join(' ') }),
  };
}

/**
 * How many connections each real server has, active and not, by "address:port", from
 * `ipvsadm --list --numeric` of one virtual server.
 */
export function parseConnections(text: string): Map<string, number> {
  const counts = new Map<string, number>();
  for (const line of text.split('\n')) {
    const [arrow, endpoint = '', , , active, inactive] = line.trim().split(/\s+/);
    const at = arrow === '->' ? endpointOf(endpoint) : undefined;
    if (at === undefined || inactive === undefined) continue;
    counts.set(endpointText(at), Number(active) + Number(inactive));
  }
  return counts;
}

const protocols = new Map<string, IpvsProtocol>([
  ['-t', 'tcp'],
  ['-u', 'udp'],
  ['--sctp-service', 'sctp'],
]);

function endpointOf(
  text: string | undefined,
): { readonly address: string; readonly port: number } | undefined {
  const [, v6, v4, port] = /^(?:\[([^\]]+)\]|([\d.]+)):(\d+)$/.exec(text ?? '') ?? [];
  const parsed = tryParseAddress(v6 ?? v4 ?? '');
  return parsed === undefined ? undefined : { address: formatAddress(parsed), port: Number(port) };
}

/** A virtual server as /proc/net/ip_vs tells of it: without a scheduler's flags. */
export interface ListedServer extends Pick<
  VirtualServer,
  'address' | 'foreign' | 'realServers' | 'scheduler'
> {
  /** How long, the file has in the kernel's own unit, which it does not tell. */
  readonly isPersistent: boolean;
  /** Of all its real servers, without those that are ending. */
  readonly activeConnections: number;
  /** Of each real server, with those that are ending, by "address:port". */
  readonly connections: ReadonlyMap<string, number>;
}

interface OpenServer extends ListedServer {
  readonly realServers: RealServer[];
  activeConnections: number;
  readonly connections: Map<string, number>;
}

/** The virtual servers of /proc/net/ip_vs, by key; those by firewall mark are not ours. */
export function parseIpvsProc(text: string): Map<string, ListedServer> {
  const servers = new Map<string, ListedServer>();
  let current: OpenServer | undefined;
  for (const line of text.split('\n')) {
    const words = line.trim().split(/ +/);
    const [first = '', second = '', third = '', fourth, active, ending] = words;
    if (first === '->') {
      const at = hexEndpoint(second);
      if (at === undefined || current === undefined) continue;
      const found = third === 'Masq' ? {} : { foreign: third };
      current.realServers.push({ ...at, weight: Number(fourth), ...found });
      current.activeConnections += Number(active);
      current.connections.set(endpointText(at), Number(active) + Number(ending));
      continue;
    }
    current = undefined;
    const protocol = procProtocols.get(first);
    const at = hexEndpoint(second);
    if (protocol === undefined || at === undefined) continue;
    const { address } = at;
    current = {
      address,
      scheduler: third,
      isPersistent: words.includes('persistent', 3),
      ...(words.includes('ops', 3) ? { foreign: 'ops' } : {}),
      realServers: [],
      activeConnections: 0,
      connections: new Map(),
    };
    servers.set(serverKey({ protocol, ...at }), current);
  }
  return servers;
}

const procProtocols = new Map<string, IpvsProtocol>([
  ['TCP', 'tcp'],
  ['UDP', 'udp'],
  ['SCTP', 'sctp'],
]);

/** "AC1E0001:0050", "[fd00:0096:0000:0000:0000:0000:0000:0001]:0050" */
function hexEndpoint(
  text: string,
): { readonly address: string; readonly port: number } | undefined {
  const colon = text.lastIndexOf(':');
  const port = Number.parseInt(text.slice(colon + 1), 16);
  if (colon < 0 || Number.isNaN(port)) return undefined;
  if (text.startsWith('[')) {
    const parsed = tryParseAddress(text.slice(1, colon - 1));
    return parsed === undefined ? undefined : { address: formatAddress(parsed), port };
  }
  const bytes = Number.parseInt(text.slice(0, colon), 16);
  if (colon !== 8 || Number.isNaN(bytes)) return undefined;
  const address = [24, 16, 8, 0].map((shift) => (bytes >>> shift) & 255).join('.');
  return { address, port };
}

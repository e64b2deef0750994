/** Reads what ipvsadm prints. */
import { formatAddress, tryParseAddress } from '#pkg/ip/address.ts';
import {
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
    const option = (name: string): string | undefined => {
      const i = words.indexOf(name, 3);
      return i < 0 ? undefined : words[i + 1];
    };
    const key = serverKey({ protocol, ...at });
    if (words[0] === '-A') {
      servers.set(key, {
        family: at.address.includes(':') ? 'ip6' : 'ip',
        protocol,
        ...at,
        scheduler: option('-s') ?? '',
        flags: option('-b') ?? '',
        persistenceSeconds: Number(option('-p') ?? 0),
        realServers: [],
      });
    } else if (words[0] === '-a') {
      const real = endpointOf(option('-r'));
      const weight = Number(option('-w') ?? 1);
      if (real !== undefined) servers.get(key)?.realServers.push({ ...real, weight });
    }
  }
  return servers;
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
    const text = at.address.includes(':')
      ? `[${at.address}]:${at.port}`
      : `${at.address}:${at.port}`;
    counts.set(text, Number(active) + Number(inactive));
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

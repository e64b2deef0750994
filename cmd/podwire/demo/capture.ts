/** Counts, with tcpdump, how pod packets travel between nodes: inside VXLAN or as they are. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import type { Clock } from '#pkg/clock/clock.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { Family } from '#pkg/ip/address.ts';
import { agentSocket, callFrom } from './agent-client.ts';
import { readLines } from './lines.ts';
import { inNamespace, programEnv } from './processes.ts';
import type { RunFolder } from './run-folder.ts';
import { clusterCIDRs, type HostName, type Topology } from './topology.ts';
import { waitFor } from './wait.ts';

/** One packet as tcpdump's line tells it. */
export interface SeenPacket {
  readonly family: Family;
  readonly source: string;
  readonly destination: string;
  /** UDP destination port. */
  readonly vxlan: boolean;
}

export interface Capture extends AsyncDisposable {
  /** Everything seen, once all that was sent before the call has been seen. */
  finish(): Promise<readonly SeenPacket[]>;
}

const vxlanPort = 8472;
/** "Discard" (RFC 863): nobody answers there. */
const markerPort = 9;
const startMs = 60_000;

/** Watches the bridge that node1, node2 and the router share: all traffic between nodes is on it. */
export async function startCapture(
  run: RunFolder,
  topology: Topology,
  clock: Clock,
): Promise<Capture> {
  const pods = clusterCIDRs.map((cidr) => `(src net ${cidr} and dst net ${cidr})`);
  const filter = [`udp dst port ${vxlanPort}`, `udp dst port ${markerPort}`, ...pods].join(' or ');
  const options = ['-i', 'br-a', '-n', '-q', '-t', '-l', '--immediate-mode', filter];
  const [file, ...args] = inNamespace(topology.underlay, ['tcpdump', ...options]);
  const child = spawn(file, args, {
    cwd: '/',
    env: programEnv(run.id),
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const ended = once(child, 'exit');
  const lines = collectLines(child.stdout);
  const messages = collectLines(child.stderr);
  await waitFor('tcpdump listening', { clock, withinMs: startMs }, () => {
    if (child.exitCode !== null) {
      throw new AgentError('ProgramFailed', `Cannot run tcpdump: ${messages.join('; ')}`);
    }
    return messages.find((line) => line.includes('listening on'));
  });
  return {
    finish: async () => {
      await sendMarker(run, topology);
      const wait = { clock, withinMs: startMs };
      await waitFor('last packet from tcpdump', wait, () =>
        lines.find((l) => isMarker(l, topology)),
      );
      return lines.flatMap((line) => parseLine(line) ?? []);
    },
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGTERM');
      await ended;
    },
  };
}

function collectLines(stream: Readable): string[] {
  const lines: string[] = [];
  readLines(stream, (line) => lines.push(line));
  return lines;
}

/** Packets between two hosts that travelled in VXLAN, in either direction. */
export function vxlanBetween(
  packets: readonly SeenPacket[],
  topology: Topology,
  pair: readonly [HostName, HostName, Family],
): number {
  const [a, b, family] = pair;
  const ends = [topology.hosts[a][family], topology.hosts[b][family]];
  return packets.filter(
    ({ vxlan, source, destination }) =>
      vxlan && source !== destination && ends.includes(source) && ends.includes(destination),
  ).length;
}

/** Packets from pod to pod that travelled as they are. */
export function plainPodPackets(packets: readonly SeenPacket[], family: Family): number {
  return packets.filter((packet) => !packet.vxlan && packet.family === family).length;
}

/** "IP 192.0.2.11.53124 > 192.0.2.12.8472: UDP, length 110" */
export function parseLine(line: string): SeenPacket | undefined {
  const match = /^(IP6?) (\S+) > (\S+): /.exec(line);
  const [, version, from = '', to = ''] = match ?? [];
  if (version === undefined) return undefined;
  const [source] = splitPort(from, version);
  const [destination, port] = splitPort(to, version);
  if (port === String(markerPort)) return undefined;
  const family = version === 'IP' ? 'ip' : 'ip6';
  return { family, source, destination, vxlan: port === String(vxlanPort) };
}

/** tcpdump puts the port behind the last dot; ICMP has none. */
function splitPort(text: string, version: string): [address: string, port: string | undefined] {
  const dot = text.lastIndexOf('.');
  const hasPort = version === 'IP' ? text.split('.').length === 5 : dot !== -1;
  return hasPort ? [text.slice(0, dot), text.slice(dot + 1)] : [text, undefined];
}

/** A packet on the same bridge behind all others: once it is seen, all others are. */
async function sendMarker(run: RunFolder, { hosts }: Topology): Promise<void> {
  const request = {
    protocol: 'udp',
    address: hosts.node2.ip,
    port: markerPort,
    timeoutMs: 200,
  } as const;
  await callFrom(agentSocket(run.path, 'node1'), request);
}

function isMarker(line: string, { hosts }: Topology): boolean {
  return line.includes(` > ${hosts.node2.ip}.${markerPort}: `);
}

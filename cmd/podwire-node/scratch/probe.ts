/**
 * Real packets for tests, run inside a network namespace:
 *   probe.ts serve ADDRESS PORT          answers each datagram with itself
 *   probe.ts ping FROM TO PORT           sends one each 10 ms, printing "answered N" as they are
 *                                        answered, until its standard input ends; then what
 *                                        became of them as JSON
 */
import { createSocket } from 'node:dgram';
import { isIPv6 } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** What `ping` prints. */
export interface PingReport {
  readonly sent: number;
  readonly lost: number;
  /** The longest time without an answer, in milliseconds. */
  readonly longestGapMs: number;
}

const intervalMs = 10;
/** How long the last answers may take. */
const patienceMs = 1_000;

function typeOf(address: string): 'udp4' | 'udp6' {
  return isIPv6(address) ? 'udp6' : 'udp4';
}

function serve(address: string, port: number): void {
  const socket = createSocket(typeOf(address));
  socket.on('message', (bytes, from) => socket.send(bytes, from.port, from.address));
  socket.bind(port, address, () => process.stdout.write('ready\n'));
  process.stdin.on('end', () => socket.close()).resume();
}

async function ping(from: string, to: string, port: number): Promise<void> {
  const socket = createSocket(typeOf(from));
  const waiting = new Set<number>();
  let longestGapMs = 0;
  let answered = 0;
  let answeredAtMs = performance.now();
  socket.on('message', (bytes) => {
    if (!waiting.delete(bytes.readUInt32BE())) return;
    longestGapMs = Math.max(longestGapMs, performance.now() - answeredAtMs);
    answeredAtMs = performance.now();
    answered += 1;
    process.stdout.write(`answered ${answered}\n`);
  });
  await new Promise<void>((resolve) => socket.bind(0, from, resolve));
  process.stdout.write('ready\n');
  let stopped = false;
  process.stdin.on('end', () => (stopped = true)).resume();
  let sent = 0;
  while (!stopped) {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(sent);
    waiting.add(sent);
    sent += 1;
    // A route that is missing right now is a lost packet, not the end.
    socket.send(bytes, port, to, () => undefined);
    await sleep(intervalMs);
  }
  const endMs = performance.now() + patienceMs;
  while (waiting.size > 0 && performance.now() < endMs) await sleep(intervalMs);
  socket.close();
  const report: PingReport = { sent, lost: waiting.size, longestGapMs: Math.round(longestGapMs) };
  process.stdout.write(`${JSON.stringify(report)}\n`);
}

const [command, ...rest] = process.argv.slice(2);
if (import.meta.main) {
  const [first = '', second = '', third = ''] = rest;
  if (command === 'serve') serve(first, Number(second));
  else await ping(first, second, Number(third));
}

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
}

const intervalMs = 10;
/**
 * That one is lost is known by so many answers to what was sent after the last that counts, and not by a
 * time, which a machine under load may need. Some may overtake others where a way changes.
 */
const overtakers = 50;
/** When no answer comes any more. */
const patienceMs = 20_000;

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
  let answered = 0;
  /** Answers after the end. */
  let after = 0;
  let stopped = false;
  socket.on('message', (bytes) => {
    const isOfInterest = waiting.delete(bytes.readUInt32BE());
    if (!isOfInterest) after += 1;
    if (!isOfInterest || stopped) return;
    answered += 1;
    process.stdout.write(`answered ${answered}\n`);
  });
  await new Promise<void>((resolve) => socket.bind(0, from, resolve));
  process.stdout.write('ready\n');
  process.stdin.on('end', () => (stopped = true)).resume();
  const send = async (number: number): Promise<void> => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(number);
    // A route that is missing right now is a lost packet, not the end.
    socket.send(bytes, port, to, () => undefined);
    await sleep(intervalMs);
  };
  let sent = 0;
  while (!stopped) {
    waiting.add(sent);
    await send(sent++);
  }
  const endMs = performance.now() + patienceMs;
  for (let number = sent; waiting.size > 0 && after < overtakers; number++) {
    if (performance.now() > endMs) break;
    await send(number);
  }
  socket.close();
  const report: PingReport = { sent, lost: waiting.size };
  process.stdout.write(`${JSON.stringify(report)}\n`);
}

const [command, ...rest] = process.argv.slice(2);
if (import.meta.main) {
  const [first = '', second = '', third = ''] = rest;
  if (command === 'serve') serve(first, Number(second));
  else await ping(first, second, Number(third));
}

/**
 * Opens TCP connections from the namespace it runs in, with plain system calls: Node's own sockets
 * cost more than what is measured. Addresses are IP,PORT.
 *
 *     prober.ts follow TO          connects all the time; each time somebody else answers, prints when
 *                                  (CLOCK_MONOTONIC in ns) and who, "" = nobody
 *     prober.ts latency COUNT TO…  connects to each in turn, prints the times in us as JSON
 *     prober.ts rate MS TO…        connects to each for so long, prints connections a second as JSON
 *     prober.ts echo PORT          sends back what comes, one connection after the other
 *     prober.ts exchange COUNT TO… one connection to each; a byte there and back on each in turn,
 *                                  prints the times in us as JSON
 *     prober.ts health TO MS       asks for /healthz each 10 ms for so long, from the first answer on;
 *                                  prints the times in us as JSON
 */
import { SOCK_CLOEXEC, SOCK_STREAM } from '#pkg/sys/constants.ts';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { addressBytes, parseAddress } from '#pkg/ip/address.ts';
import { openListenSys } from '#pkg/sys/listen-sys.ts';
import { openSys } from '#pkg/sys/open-sys.ts';

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_NONBLOCK = 0o4000;
const POLLIN = 1;
const POLLOUT = 4;
const sys = await openSys();
const sleeper = new Int32Array(new SharedArrayBuffer(4));

interface Socket {
  readonly family: number;
  readonly bytes: Uint8Array;
}

function main([mode, first = '', ...rest]: readonly string[]): void {
  if (mode === 'follow') follow(sockaddr(first));
  else if (mode === 'latency') print(latency(Number(first), rest.map(sockaddr)));
  else if (mode === 'rate') print(rest.map((to) => rate(Number(first), sockaddr(to))));
  else if (mode === 'exchange') print(exchange(Number(first), rest.map(sockaddr)));
  else if (mode === 'echo') echo(Number(first));
  else print(health(sockaddr(first), Number(rest[0])));
}

function print(figures: unknown): void {
  process.stdout.write(JSON.stringify(figures));
}

function follow(to: Socket): void {
  let known: string | undefined;
  for (;;) {
    const said = answer(to)?.split(' ')[0] ?? '';
    if (said !== known) process.stdout.write(`${process.hrtime.bigint()} ${said}\n`);
    known = said;
    Atomics.wait(sleeper, 0, 0, 1);
  }
}

/** What the other side says; undefined when it says nothing within some milliseconds. */
function answer(to: Socket, ask?: Uint8Array, patienceMs = 10): string | undefined {
  const fd = open(to, SOCK_NONBLOCK);
  try {
    try {
      sys.connect(fd, to.bytes);
    } catch (error) {
      if (!isErrno(error, 'EINPROGRESS')) return undefined;
    }
    if (sys.poll(fd, POLLOUT, patienceMs) !== POLLOUT) return undefined;
    if (ask !== undefined) sys.send(fd, ask, 0);
    if ((sys.poll(fd, POLLIN, patienceMs) & POLLIN) === 0) return undefined;
    const buffer = new Uint8Array(64);
    return new TextDecoder().decode(buffer.subarray(0, sys.recv(fd, buffer, 0)));
  } catch {
    return undefined;
  } finally {
    sys.close(fd);
  }
}

function latency(count: number, targets: readonly Socket[]): number[][] {
  const times = targets.map((): number[] => []);
  for (let i = 0; i < count; i++) {
    for (const [t, to] of targets.entries()) {
      const startedMs = performance.now();
      connectOnce(to, () => times[t]?.push((performance.now() - startedMs) * 1000));
    }
  }
  return times;
}

function rate(ms: number, to: Socket): number {
  const startedMs = performance.now();
  let count = 0;
  while (performance.now() - startedMs < ms) {
    connectOnce(to, () => undefined);
    count += 1;
  }
  return (count * 1000) / (performance.now() - startedMs);
}

const buffer = new Uint8Array(64);

function connectOnce(to: Socket, onConnected: () => void): void {
  const fd = open(to, 0);
  sys.connect(fd, to.bytes);
  onConnected();
  // The server closes first, so that the address is free again here.
  while (sys.recv(fd, buffer, 0) > 0);
  sys.close(fd);
}

function exchange(count: number, targets: readonly Socket[]): number[][] {
  const connected = targets.map((to) => {
    const fd = open(to, 0);
    sys.connect(fd, to.bytes);
    return { fd, times: [] as number[] };
  });
  const byte = Uint8Array.of(1);
  for (let i = 0; i < count; i++) {
    // What is asked second finds memory warm: each is as often.
    for (const { fd, times } of i % 2 === 0 ? connected : connected.toReversed()) {
      const startedMs = performance.now();
      sys.send(fd, byte, 0);
      sys.recv(fd, buffer, 0);
      times.push((performance.now() - startedMs) * 1000);
    }
  }
  for (const { fd } of connected) sys.close(fd);
  return connected.map(({ times }) => times);
}

function echo(port: number): void {
  const listening = openListenSys();
  const { bytes, family } = sockaddr(`0.0.0.0,${port}`);
  const fd = sys.socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sys.bind(fd, bytes);
  listening.listen(fd, 16);
  process.stdout.write('ready\n');
  for (;;) {
    const peer = listening.accept(fd);
    for (;;) {
      const length = sys.recv(peer, buffer, 0);
      if (length <= 0) break;
      sys.send(peer, buffer.subarray(0, length), 0);
    }
    sys.close(peer);
  }
}

function health(to: Socket, forMs: number): number[] {
  const ask = new TextEncoder().encode('GET /healthz HTTP/1.0\r\nConnection: close\r\n\r\n');
  const micros: number[] = [];
  let firstMs: number | undefined;
  while (firstMs === undefined || performance.now() - firstMs < forMs) {
    const startedMs = performance.now();
    if (answer(to, ask, 10_000) !== undefined) {
      firstMs ??= startedMs;
      micros.push((performance.now() - startedMs) * 1000);
    }
    Atomics.wait(sleeper, 0, 0, 10);
  }
  return micros;
}

function open({ family }: Socket, flags: number): number {
  return sys.socket(family, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
}

/** struct sockaddr_in or sockaddr_in6: the family in host order, the port in network order. */
function sockaddr(text: string): Socket {
  const [ip = '', port = ''] = text.split(',');
  const address = parseAddress(ip);
  const family = address.family === 'ip' ? AF_INET : AF_INET6;
  const bytes = new Uint8Array(address.family === 'ip' ? 16 : 28);
  new Uint16Array(bytes.buffer, 0, 1)[0] = family;
  new DataView(bytes.buffer).setUint16(2, Number(port));
  bytes.set(addressBytes(address), address.family === 'ip' ? 4 : 8);
  return { family, bytes };
}

main(process.argv.slice(2));

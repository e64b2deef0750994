/**
 * Opens TCP connections from the namespace it runs in, with plain system calls: Node's own sockets
 * cost more than what is measured.
 *
 *     prober.ts until IP PORT TEXT       prints "ready", then when an answer first begins with TEXT
 *                                        ("" = when there is none any more), on CLOCK_MONOTONIC in ns
 *     prober.ts latency COUNT IP:PORT…   connects to each in turn, prints the times in us as JSON
 */
import { SOCK_CLOEXEC, SOCK_STREAM } from '#pkg/sys/constants.ts';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { openSys } from '#pkg/sys/open-sys.ts';

const AF_INET = 2;
const SOCK_NONBLOCK = 0o4000;
const POLLIN = 1;
const POLLOUT = 4;
const sys = await openSys();

function main([mode, ...args]: readonly string[]): void {
  if (mode === 'until') until(args);
  else latency(Number(args[0]), args.slice(1));
}

function until([ip = '', port = '', text = '']: readonly string[]): void {
  const to = sockaddr(ip, Number(port));
  process.stdout.write('ready\n');
  const sleeper = new Int32Array(new SharedArrayBuffer(4));
  for (;;) {
    const said = answer(to);
    if (text === '' ? said === undefined : said?.startsWith(text) === true) break;
    Atomics.wait(sleeper, 0, 0, 1);
  }
  process.stdout.write(`${process.hrtime.bigint()}\n`);
}

/** What the other side says; undefined when it says nothing within some milliseconds. */
function answer(to: Uint8Array): string | undefined {
  const fd = open(SOCK_NONBLOCK);
  try {
    try {
      sys.connect(fd, to);
    } catch (error) {
      if (!isErrno(error, 'EINPROGRESS')) return undefined;
    }
    if (sys.poll(fd, POLLOUT, 20) !== POLLOUT || (sys.poll(fd, POLLIN, 50) & POLLIN) === 0) {
      return undefined;
    }
    const buffer = new Uint8Array(64);
    return new TextDecoder().decode(buffer.subarray(0, sys.recv(fd, buffer, 0)));
  } catch {
    return undefined;
  } finally {
    sys.close(fd);
  }
}

function latency(count: number, targets: readonly string[]): void {
  const addresses = targets.map((target) => {
    const [ip = '', port] = target.split(':');
    return { to: sockaddr(ip, Number(port)), micros: [] as number[] };
  });
  const buffer = new Uint8Array(64);
  for (let i = 0; i < count; i++) {
    for (const { micros, to } of addresses) {
      const fd = open(0);
      const startedMs = performance.now();
      sys.connect(fd, to);
      micros.push((performance.now() - startedMs) * 1000);
      // The server closes first, so that the address is free again here.
      while (sys.recv(fd, buffer, 0) > 0);
      sys.close(fd);
    }
  }
  process.stdout.write(JSON.stringify(addresses.map(({ micros }) => micros)));
}

function open(flags: number): number {
  return sys.socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
}

/** struct sockaddr_in: the family in host order, the port in network order. */
function sockaddr(ip: string, port: number): Uint8Array {
  const bytes = Uint8Array.of(0, 0, port >> 8, port & 255, ...ip.split('.').map(Number));
  const address = new Uint8Array([...bytes, ...new Uint8Array(8)]);
  new Uint16Array(address.buffer, 0, 1)[0] = AF_INET;
  return address;
}

main(process.argv.slice(2));

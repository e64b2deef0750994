/** Debian's etcd for tests: in a network namespace of its own, or a given one, over a Unix socket. */
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { systemClock } from '#pkg/clock/clock.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';

export interface ScratchEtcd extends AsyncDisposable {
  /** For tests outside of the namespace. */
  readonly socket: string;
  /** Holds ca.crt, tls.crt and tls.key when it speaks TLS. */
  readonly dir: string;
  /** `etcdctl` with these words; its output. */
  ctl(...words: readonly string[]): Promise<string>;
  start(): Promise<void>;
  /** Ends the process; what it has stored stays. */
  stop(): Promise<void>;
  /** It hangs, and answers nobody, until it goes on. */
  hang(): void;
  goOn(): void;
}

export interface ScratchEtcdOptions {
  /** Where it listens also at `listen`, "http://127.0.0.1:2379"; undefined = a new one. */
  readonly netns?: ScratchNetns;
  readonly listen?: string;
  /** PEM texts: it then wants a certificate of this authority from clients. */
  readonly tls?: { readonly ca: string; readonly cert: string; readonly key: string };
}

const socketName = 'localhost:2379';

/** Resolves when it answers. */
export async function startScratchEtcd(options: ScratchEtcdOptions = {}): Promise<ScratchEtcd> {
  await using opened = new AsyncDisposableStack();
  const netns = options.netns ?? opened.use(await createScratchNetns('pw-etcd'));
  const dir = await mkdtemp(join(tmpdir(), 'podwire-etcd-'));
  opened.defer(() => rm(dir, { recursive: true, force: true }));
  await mkdir(join(dir, 'run'));
  const { tls, listen } = options;
  const tlsFlags: string[] = [];
  if (tls !== undefined) {
    const files = [join(dir, 'ca.crt'), join(dir, 'tls.crt'), join(dir, 'tls.key')] as const;
    await Promise.all(
      [tls.ca, tls.cert, tls.key].map((text, i) => writeFile(files[i] ?? '', text)),
    );
    tlsFlags.push('--client-cert-auth', '--trusted-ca-file', files[0]);
    tlsFlags.push('--cert-file', files[1], '--key-file', files[2]);
  }
  // Its sockets' names are HOST:PORT in the folder it runs in.
  const clients = [`${tls === undefined ? 'unix' : 'unixs'}://${socketName}`, listen ?? []].flat();
  const flags = ['--data-dir', join(dir, 'data'), '--logger', 'zap', '--log-level', 'error'];
  flags.push('--listen-peer-urls', 'unix://localhost:2380', '--force-new-cluster');
  flags.push(
    '--listen-client-urls',
    clients.join(','),
    '--advertise-client-urls',
    clients[0] ?? '',
  );
  const run = { cwd: join(dir, 'run'), reject: false, stdin: 'ignore', all: true } as const;
  let child: ReturnType<typeof spawn> | undefined;
  const spawn = () =>
    execa('ip', ['netns', 'exec', netns.name, 'etcd', ...flags, ...tlsFlags], run);
  const socket = join(dir, 'run', socketName);
  const ctl = async (...words: readonly string[]): Promise<string> => {
    const env = { ETCDCTL_API: '3' };
    const endpoint = `--endpoints=${clients[0]}`;
    const own = tlsFlags.length === 0 ? [] : tlsClientFlags(dir);
    const args = ['netns', 'exec', netns.name, 'etcdctl', endpoint, ...own, ...words];
    const { stdout } = await execa('ip', args, { cwd: run.cwd, env });
    return stdout;
  };
  const stop = async (): Promise<void> => {
    child?.kill('SIGKILL');
    await child;
    await rm(socket, { force: true });
    await rm(join(dir, 'run', 'localhost:2380'), { force: true });
  };
  const start = async (): Promise<void> => {
    const started = spawn();
    child = started;
    let ended = false;
    void started.then(() => (ended = true));
    const deadlineMs = systemClock.now() + 20_000;
    for (;;) {
      if (existsSync(socket) && (await answers(ctl))) return;
      if (ended || systemClock.now() > deadlineMs) {
        await stop();
        throw new Error(`Cannot start etcd: ${(await started).all}`);
      }
      await systemClock.sleep(50);
    }
  };
  opened.defer(stop);
  await start();
  const running = opened.move();
  return {
    socket,
    dir,
    ctl,
    start,
    stop,
    hang: () => void child?.kill('SIGSTOP'),
    goOn: () => void child?.kill('SIGCONT'),
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

/** It refuses a read while users have to name themselves: an answer all the same. */
async function answers(ctl: ScratchEtcd['ctl']): Promise<boolean> {
  const said = await ctl('--command-timeout=2s', 'get', '/').catch((error: unknown) =>
    String(error),
  );
  return !/deadline exceeded|connection refused|no such file/.test(said);
}

function tlsClientFlags(dir: string): readonly string[] {
  return [`--cacert=${dir}/ca.crt`, `--cert=${dir}/tls.crt`, `--key=${dir}/tls.key`];
}

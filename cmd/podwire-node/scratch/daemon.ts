/** The real daemon in nodes' namespaces, each with its files in a folder of its own. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { bundle } from '#hack/bundle.ts';
import type { TestNode } from './three-nodes.ts';

export interface Daemon {
  /** Everything it has logged. */
  readonly log: () => string;
  /** Resolves when it is gone, to its exit code; undefined when a signal ended it. */
  kill(signal: 'SIGKILL' | 'SIGTERM'): Promise<number | undefined>;
}

export interface Daemons extends AsyncDisposable {
  /** Starts it on the node with these flags and this configuration (YAML lines). */
  start(node: TestNode, flags: readonly string[], config: string): Promise<Daemon>;
}

/** As the build makes it: beside the plugins that the daemon installs. */
const root = join(import.meta.dirname, '../../..');
const program = join(root, 'dist/podwire-node');

let built: Promise<void> | undefined;

/** Once a test file: as one file a daemon starts sooner. */
export function buildDaemon(): Promise<void> {
  return (built ??= (async () => {
    const text = await readFile(join(root, 'package.json'), 'utf8');
    const { version } = JSON.parse(text) as { readonly version: string };
    await bundle('cmd/podwire-node/main.ts', program, version);
  })());
}

/** Disposing ends them. `dir` gets a folder for each node, with its run and net.d folders. */
export function createDaemons(dir: string): Daemons {
  const daemons = new Set<ReturnType<typeof spawn>>();
  return {
    start: async ({ name, netns }, flags, config) => {
      const own = join(dir, name);
      await mkdir(own, { recursive: true });
      const file = join(own, 'config.yaml');
      const folders =
        `runDir: ${own}/run\ncniConfDir: ${own}/net.d\n` +
        `cniDataDir: ${own}/data\nstateDir: ${own}/state\n`;
      await writeFile(file, `${folders}${config}`);
      const child = spawn(netns.name, [...flags, '--node-name', name, '--config', file]);
      daemons.add(child);
      let log = '';
      child.all.on('data', (bytes: Buffer) => (log += bytes.toString()));
      return {
        log: () => log,
        kill: async (signal) => {
          child.kill(signal);
          const { exitCode } = await child;
          daemons.delete(child);
          return exitCode;
        },
      };
    },
    [Symbol.asyncDispose]: async () => {
      for (const daemon of daemons) daemon.kill('SIGKILL');
      await Promise.all(daemons);
    },
  };
}

/** `ip netns exec` becomes the program: a signal sent to it reaches the daemon. */
function spawn(netns: string, flags: readonly string[]) {
  const command = ['netns', 'exec', netns, process.execPath, program, ...flags];
  return execa('ip', command, { reject: false, stdin: 'ignore', all: true });
}

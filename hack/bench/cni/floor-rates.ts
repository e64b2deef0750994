/**
 * How many ADDs and DELs a second the kernel lets eight callers have, next to Go's plugin and the
 * node daemon:
 *
 *     node --disable-warning=ExperimentalWarning hack/bench/cni/floor-rates.ts [pods] [turns]
 *
 * Needs root, Debian's containernetworking-plugins and dist/ (npm run build). The threads start no
 * program and read no files. A server reaches less than what either they or programs that do nothing
 * reach: a call costs both.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { openSys } from '#pkg/sys/open-sys.ts';
import { bundle } from '#hack/bundle.ts';
import { inNodeOf } from './in-node.ts';
import { bridgeChain, goNode, residentNode, standaloneNode, type NodeContext } from './nodes.ts';
import { compareRates, programCaller, workers, type Caller } from './rates.ts';
import { openSpawner, type Spawner } from './spawn.ts';
import { threadCaller } from './thread-caller.ts';

setFlagsFromString('--always-sparkplug');
const stopping = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, () => stopping.abort());
const load = (): string => readFileSync('/proc/loadavg', 'utf8').slice(0, 14);

/** A runtime starts a program for each call, whatever it does. */
function programStarts(spawner: Spawner): Caller {
  const program = { file: '/bin/true', env: {}, stdin: '' };
  return {
    name: 'a program that ends at once (/bin/true)',
    run: (_, pods) =>
      void spawner.runAll(
        Array.from(pods, () => program),
        workers,
      ),
  };
}

async function main([podsText, turnsText]: readonly string[]): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'podwire-floor-rates-'));
  try {
    await using opened = new AsyncDisposableStack();
    const daemonProgram = join(dir, 'cni-daemon.mjs');
    await bundle('cmd/podwire-node/scratch/cni-daemon.ts', daemonProgram, '0.0.0-bench');
    const context: NodeContext = { dir, daemonProgram, opened };
    const sys = await openSys();
    const [spawner, inNode] = [openSpawner(), inNodeOf(sys)];
    const go = await goNode(context, 'Go bridge, many', bridgeChain);
    const served = await residentNode(context, 'launcher and podwire-node, many', bridgeChain);
    const plugin = await standaloneNode(context, 'the plugin in 8 threads', bridgeChain);
    const messages = await standaloneNode(context, 'its messages in 8 threads', bridgeChain);
    const callers = [
      programCaller(spawner, inNode, go),
      ...(served === undefined ? [] : [programCaller(spawner, inNode, served)]),
      programStarts(spawner),
      await threadCaller(plugin, 'plugin', workers),
      await threadCaller(messages, 'messages', workers),
    ];
    console.log(`load ${load()}`);
    const size = { count: Number(podsText ?? 500), turns: Number(turnsText ?? 3) };
    await compareRates(callers, size, {
      opened,
      refuseIfStopped() {
        if (stopping.signal.aborted) throw new Error('Stopped on request');
      },
    });
    console.log(`load ${load()}`);
  } finally {
    rmSync(dir, { recursive: true });
  }
}

await main(process.argv.slice(2));

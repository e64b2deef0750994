/**
 * Where the executable's time goes, and what it could not fall below: next to Go's ADD and DEL of a
 * bridge, those of podwire-cni, programs of one line that the same compiler makes, and what the
 * kernel takes for the same calls of a process that is warm.
 *
 *     node --disable-warning=ExperimentalWarning hack/bench/cni/floor.ts [turns]
 *
 * Needs root, Debian's containernetworking-plugins and dist/ (npm run build). The programs of one
 * line add no pod: what they take is what any program of that engine takes before its first line.
 * That and the kernel's part, together, are what no plugin of that engine falls below.
 */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { createScratchNetns } from '#pkg/netns/scratch.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { programOf, runChain } from './contestant.ts';
import { bridgeChain, goNode, standaloneNode, type NodeContext } from './nodes.ts';
import { inNodeOf } from './in-node.ts';
import { openSpawner } from './spawn.ts';
import { ratioTable, type Sample } from './table.ts';
import { openWarmPlugin } from './warm-call.ts';

const root = join(import.meta.dirname, '../../..');
const sys = await openSys();
const spawner = openSpawner();
const inNode = inNodeOf(sys);

/** The cheapest programs that have what every plugin needs: an engine, files, system calls. */
const lines: Readonly<Record<string, string>> = {
  'an empty program': '',
  'one that can open files': "import { openSync } from 'node:fs';\nglobalThis.use = openSync;\n",
  'one that can make system calls': [
    "import { dlopen } from 'bun:ffi';",
    "const { symbols } = dlopen('libc.so.6', { getpid: { args: [], returns: 'int32_t' } });",
    'globalThis.use = symbols.getpid();',
  ].join('\n'),
};

/** As hack/build-cni.ts compiles podwire-cni. */
const flags = ['--compile', '--bytecode', '--minify', '--format=esm', '--compile-jit-policy=1000'];

async function compile(dir: string, name: string, source: string): Promise<string> {
  const [entry, outfile] = [join(dir, `${name}.ts`), join(dir, name)];
  writeFileSync(entry, source);
  const bun = join(root, 'node_modules/.bin/bun');
  await promisify(execFile)(bun, ['build', ...flags, `--outfile=${outfile}`, entry], { cwd: dir });
  return outfile;
}

async function main([turnsText]: readonly string[]): Promise<void> {
  const turns = Number(turnsText ?? 30);
  const dir = mkdtempSync(join(tmpdir(), 'podwire-floor-'));
  try {
    await using opened = new AsyncDisposableStack();
    const context: NodeContext = { dir, daemonProgram: '', opened };
    const netns = opened.use(await createScratchNetns('pw-floor-pod')).path;
    const go = await goNode(context, 'Go bridge + host-local', bridgeChain);
    const own = await standaloneNode(context, 'podwire-cni as bridge', bridgeChain);
    const warmNode = await standaloneNode(context, 'the kernel, of a warm process', bridgeChain);
    const [plugin] = warmNode.plugins;
    if (plugin === undefined) throw new Error('unreachable');
    const warm = await openWarmPlugin(sys, plugin);
    const programs = await Promise.all(
      Object.entries(lines).map(async ([name, source], i) => ({
        name,
        file: await compile(dir, `floor${i}`, source),
      })),
    );
    const rows = { ADD: new Map<string, Sample[]>(), DEL: new Map<string, Sample[]>() };
    const keep = (command: 'ADD' | 'DEL', name: string, sample: Sample): void => {
      rows[command].set(name, [...(rows[command].get(name) ?? []), sample]);
    };
    for (let turn = 0; turn < turns; turn++) {
      const pod = { id: `pod${turn}`, netns };
      for (const contestant of [go, own, warmNode]) {
        for (const command of ['ADD', 'DEL'] as const) {
          const run = (): Sample =>
            contestant === warmNode
              ? warm.run(command, pod)
              : runChain(spawner, contestant, command, pod);
          keep(command, contestant.name, inNode(contestant, run));
        }
      }
      for (const { name, file } of programs) {
        keep('ADD', name, spawner.run(programOf({ file, config: {} }, { command: 'ADD', pod })));
      }
    }
    for (const command of ['ADD', 'DEL'] as const) {
      const table = [...rows[command]].map(([name, samples]) => ({ name, samples }));
      console.log(`${ratioTable(command, table)}\n`);
    }
  } finally {
    rmSync(dir, { recursive: true });
  }
}

await main(process.argv.slice(2));

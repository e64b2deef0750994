/**
 * Where the executable's time goes, and what it could not fall below: next to Go's ADD of a bridge,
 * a whole ADD of podwire-cni, and programs of one line that the same compiler makes.
 *
 *     node --disable-warning=ExperimentalWarning hack/bench/cni/floor.ts [turns]
 *
 * Needs root, Debian's containernetworking-plugins and dist/ (npm run build). The programs of one
 * line add no pod: what they take is what any program of that engine takes before its first line.
 */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { withNetns } from '#pkg/netns/netns.ts';
import { createScratchNetns } from '#pkg/netns/scratch.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { programOf, runChain, type Contestant } from './contestant.ts';
import { bridgeChain, goNode, standaloneNode, type NodeContext } from './nodes.ts';
import { openSpawner } from './spawn.ts';
import { ratioTable, type Sample } from './table.ts';

const root = join(import.meta.dirname, '../../..');
const sys = await openSys();
const spawner = openSpawner();

/** The cheapest programs that have what every plugin needs: an engine, files, system calls. */
const lines: Readonly<Record<string, string>> = {
  'an empty program': '',
  'one that can open files': "import { openSync } from 'node:fs';\nglobalThis.use = openSync;\n",
  'one that can make system calls': [
    "import { openSync } from 'node:fs';",
    "import { dlopen } from 'bun:ffi';",
    "const { symbols } = dlopen('libc.so.6', { getpid: { args: [], returns: 'int32_t' } });",
    'globalThis.use = [openSync, symbols.getpid()];',
  ].join('\n'),
};

/** As hack/build-cni.ts compiles podwire-cni. */
const flags = ['--compile', '--bytecode', '--minify', '--format=esm', '--compile-jit-policy=10'];

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
    const go = await goNode(context, 'Go bridge + host-local, ADD', bridgeChain);
    const own = await standaloneNode(context, 'podwire-cni as bridge, ADD', bridgeChain);
    const programs = await Promise.all(
      Object.entries(lines).map(async ([name, source], i) => ({
        name,
        file: await compile(dir, `floor${i}`, source),
      })),
    );
    const rows = new Map<string, Sample[]>();
    const keep = (name: string, sample: Sample): void => {
      rows.set(name, [...(rows.get(name) ?? []), sample]);
    };
    for (let turn = 0; turn < turns; turn++) {
      const pod = { id: `pod${turn}`, netns };
      for (const contestant of [go, own]) {
        keep(
          contestant.name,
          inNode(contestant, () => runChain(spawner, contestant, 'ADD', pod)),
        );
        inNode(contestant, () => runChain(spawner, contestant, 'DEL', pod));
      }
      for (const { name, file } of programs) {
        keep(name, spawner.run(programOf({ file, config: {} }, { command: 'ADD', pod })));
      }
    }
    const table = [...rows].map(([name, samples]) => ({ name, samples }));
    console.log(ratioTable('', table));
  } finally {
    rmSync(dir, { recursive: true });
  }
}

function inNode<T>(
  contestant: Contestant,
  work: () => T extends PromiseLike<unknown> ? never : T,
): T {
  return withNetns(sys, contestant.node.path, work, (error) => {
    console.error(error.message);
    process.exit(1);
  });
}

await main(process.argv.slice(2));

#!/usr/bin/env node
/**
 * `npm run demo` and `npm test` start here: brings a fresh machine to where the task can run, says
 * what it installs, and runs the task with the pinned Node. Plain JavaScript without dependencies,
 * because it runs before there are any, on any Node from 20.
 *
 * Exit codes: the task's own; 2 with one line on stderr when the machine cannot run it.
 */
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildProducts } from './setup/build.mjs';
import { installPackages } from './setup/packages.mjs';
import { installTools } from './setup/tools.mjs';
import { Refusal, runTask } from './setup/run.mjs';

const root = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '');
const node = join(root, 'node_modules/node/bin/node');
/** Debian's `su` keeps the user's PATH, without the directories of ip, nft and iptables. */
const systemPath = ['/usr/local/sbin', '/usr/sbin', '/sbin'];

/** What each task runs, in order: the first that fails ends it. */
const tasks = {
  vm: (args) => [[join(root, 'hack/vm/main.ts'), ...args]],
  demo: (args) => [[join(root, 'dist/podwire'), 'demo', ...args]],
  test: (args) =>
    args.length > 0
      ? [[join(root, 'node_modules/vitest/vitest.mjs'), 'run', ...args]]
      : [[join(root, 'hack/verify.ts')], [join(root, 'hack/kernel-suites.ts')]],
};

async function main(task, ...args) {
  if (!Object.hasOwn(tasks, task ?? '')) {
    throw new Refusal(`usage: node hack/setup.mjs <${Object.keys(tasks).join('|')}> [arguments]`);
  }
  checkMachine(task);
  const env = { ...process.env, PATH: searchPath() };
  installTools(task, env, say);
  installPackages(root, env, say);
  buildProducts({ root, node, env, say });
  for (const command of tasks[task](args)) {
    const code = await runTask(node, ['--disable-warning=ExperimentalWarning', ...command], {
      cwd: root,
      env,
    });
    if (code !== 0) return code;
  }
  return 0;
}

function checkMachine(task) {
  if (process.platform !== 'linux') {
    throw new Refusal(`cannot run ${task} on ${process.platform}: needs Linux network namespaces`);
  }
  if (Number(process.versions.node.split('.')[0]) < 20) {
    throw new Refusal(
      `cannot run ${task} with Node ${process.versions.node}: needs Node 20 or later`,
    );
  }
  if (process.getuid() !== 0) {
    throw new Refusal(
      `cannot run ${task} as user ${process.getuid()}: needs root for network namespaces`,
    );
  }
}

function searchPath() {
  const given = (process.env.PATH ?? '').split(delimiter).filter((folder) => folder !== '');
  const missing = systemPath.filter((folder) => !given.includes(folder));
  return [join(root, 'node_modules/.bin'), ...given, ...missing].join(delimiter);
}

function say(line) {
  process.stderr.write(`podwire setup: ${line}\n`);
}

try {
  process.exitCode = await main(...process.argv.slice(2));
} catch (error) {
  if (!(error instanceof Refusal)) throw error;
  say(error.message);
  process.exitCode = 2;
}

/**
 * `npm run test:vm`: runs tests under Debian's kernel in a virtual machine, for what the kernel of
 * this machine lacks: IPVS, dummy and ipvlan devices, WireGuard, SCTP, another version. The machine
 * sees this one's files, and changes none of them.
 *
 * Exit codes: that of the tests; 1 for mistakes; 2 when there can be no machine here; 3 when it ended
 * without saying how they went.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { messageOf } from '#pkg/errors/agent-error.ts';
import { chooseAccelerator } from './accelerator.ts';
import { parseVmArguments, usage, type VmArguments } from './arguments.ts';
import { bootAndRun, noMachine } from './boot.ts';
import { call, unpackedPackage } from './debian-package.ts';
import { guestInit } from './guest-init.ts';
import { writeImage } from './image.ts';
import { findKernel, type VmKernel } from './kernel.ts';
import { qemu, type Machine } from './qemu.ts';
import { bundleScript, bundleTests } from './bundle-tests.ts';
import { bundleCniProgram } from './cni-program.ts';
import { suitesOf } from './suites.ts';
import { systemFiles } from './system-files.ts';

const root = join(import.meta.dirname, '../..');
/** Where the bundled tests are in the VM; beside the packages, so that what they import is found. */
const testProgram = join(root, 'node_modules/.podwire-vm-tests.mjs');
const node = join(root, 'node_modules/node/bin/node');
const testCommand = [node, '--disable-warning=ExperimentalWarning', testProgram];

async function main(args: VmArguments, signal: AbortSignal): Promise<number> {
  const { busybox, kernel } = machineParts(args);
  const work = mkdtempSync(join(tmpdir(), 'podwire-vm-'));
  try {
    const probe = { kernelImage: kernel.image, busybox, work, signal };
    const accelerator = await chooseAccelerator(probe);
    const initrd = join(work, 'initrd');
    const { timeoutSeconds } = args;
    const programs = [
      { path: testProgram, file: join(work, 'tests.mjs') },
      { path: join(root, 'dist/podwire-cni'), file: join(work, 'podwire-cni') },
    ];
    const [script = '', ...scriptArguments] = args.command;
    const isScript = script.endsWith('.ts');
    const suites = args.command.length > 0 ? [] : suitesOf(root, args.tests, args.quick);
    if (isScript) await bundleScript(root, script, join(work, 'tests.mjs'));
    else await bundleTests(root, suites, join(work, 'tests.mjs'));
    await bundleCniProgram(root, node, join(work, 'podwire-cni'));
    const isCommand = args.command.length > 0 && !isScript;
    const argv = isCommand ? args.command : [...testCommand, ...scriptArguments];
    const env = {
      ...guestEnvironment,
      PODWIRE_SLOWNESS: slowness[accelerator],
      // Beside other tests, which go first, a test takes five times as long.
      PODWIRE_TEST_SECONDS: '600',
    };
    const init = guestInit({ root, argv, env, timeoutSeconds });
    const modules = { version: kernel.version, folder: kernel.modules };
    const system = systemFiles(guestEnvironment.PATH);
    writeImage(initrd, { busybox, init, modules, repository: root, programs, system });
    const machine: Machine = {
      accelerator,
      kernelImage: kernel.image,
      initrd,
      consoleLog: join(work, 'console'),
      exitCodeFile: join(work, 'exit-code'),
      shareRoot: true,
    };
    say(`Linux ${kernel.version}, ${accelerator}`);
    return await bootAndRun(machine, {
      timeoutSeconds,
      signal,
      onOutput: (bytes) => void process.stdout.write(bytes),
      say,
    });
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** Nothing is wrong with the tests, but they cannot run here. */
class NoMachine extends Error {}

/** @throws {NoMachine} */
function machineParts(args: VmArguments): { readonly busybox: string; readonly kernel: VmKernel } {
  try {
    call(qemu, ['-version'], '/');
    const busybox = join(unpackedPackage('busybox-static'), 'bin/busybox');
    return { busybox, kernel: findKernel(args.kernel, busybox) };
  } catch (cause) {
    throw new NoMachine(`no virtual machine: ${messageOf(cause)}`, { cause });
  }
}

/** PODWIRE_VM tells tests that what they need must be there: nothing is skipped in the VM. */
const guestEnvironment = {
  PATH: `${join(root, 'node_modules/.bin')}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
  HOME: '/root',
  CI: '1',
  NO_COLOR: '1',
  PODWIRE_VM: '1',
} as const;

/** How many times as long tests may take: hack/vm/patience.ts. */
const slowness = { kvm: '1', tcg: '10' } as const;

function say(line: string): void {
  process.stderr.write(`podwire vm: ${line}\n`);
}

const stop = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => stop.abort());
}
try {
  process.exitCode = await main(parseVmArguments(process.argv.slice(2)), stop.signal);
} catch (error) {
  if (error instanceof NoMachine) say(error.message);
  else say(error instanceof TypeError ? `${error.message}\n${usage}` : messageOf(error));
  process.exitCode = error instanceof NoMachine ? noMachine : 1;
}

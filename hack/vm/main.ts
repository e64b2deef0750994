/**
 * `npm run test:vm`: runs tests under Debian's kernel in a virtual machine, for what the kernel of
 * this machine lacks: IPVS, dummy and ipvlan devices, WireGuard, SCTP, another version. The machine
 * sees this one's files, and changes none of them.
 *
 * Exit codes: that of the tests; 1 for mistakes; 2 when there can be no machine here; 3 when it ended
 * without saying how they went.
 */
import { join } from 'node:path';
import { messageOf } from '#pkg/errors/agent-error.ts';
import { chooseAccelerator } from './accelerator.ts';
import { parseVmArguments, usage, type VmArguments } from './arguments.ts';
import { bootAndRun, noAnswer, noMachine } from './boot.ts';
import { call, unpackedPackage, type Packages } from './debian-package.ts';
import { guestInit, type GuestMachine } from './guest-init.ts';
import { writeImage, type Program } from './image.ts';
import { findKernel, type VmKernel } from './kernel.ts';
import type { Machine } from './machine.ts';
import { qemu, qemuCommand, qemuGuest } from './qemu.ts';
import { bundleScript, bundleTests } from './bundle-tests.ts';
import { bundleCniProgram } from './cni-program.ts';
import { requireUserMode, suitesOf } from './suites.ts';
import { systemFiles } from './system-files.ts';
import { findUserModeKernel, startsUserMode, userModeCommand, userModeGuest } from './user-mode.ts';
import { UnnamedFile } from '#hack/unnamed-file.ts';

const root = join(import.meta.dirname, '../..');
/** Where the bundled tests are in the VM; beside the packages, so that what they import is found. */
const testProgram = join(root, 'node_modules/.podwire-vm-tests.mjs');
const node = join(root, 'node_modules/node/bin/node');
const testCommand = [node, '--disable-warning=ExperimentalWarning', testProgram];

async function main(args: VmArguments, signal: AbortSignal): Promise<number> {
  const programs = await programsFor(args);
  const machine = await chooseMachine(args, signal);
  using initrd = new UnnamedFile();
  using console = new UnnamedFile();
  using exitCode = new UnnamedFile();
  const { busybox, command, guest, kernel } = machine;
  const { timeoutSeconds } = args;
  const env = {
    ...guestEnvironment,
    PODWIRE_VM: machine.kind,
    PODWIRE_SLOWNESS: slowness[machine.speed],
    // Beside other tests, which go first, a test takes five times as long.
    PODWIRE_TEST_SECONDS: '600',
  };
  const init = guestInit({ machine: guest, root, argv: commandOf(args), env, timeoutSeconds });
  const modules = { version: kernel.version, folder: kernel.modules };
  const system = systemFiles(guestEnvironment.PATH);
  writeImage(initrd.fd, { busybox, init, modules, repository: root, programs, system });
  say(`Linux ${kernel.version}, ${machine.speed}`);
  return await bootAndRun(
    { command, initrd, console, exitCode },
    { timeoutSeconds, signal, onOutput: (bytes) => void process.stdout.write(bytes), say },
  );
}

/** What the machine runs, from our sources: mistakes in the arguments are found before all else. */
async function programsFor(args: VmArguments): Promise<Program[]> {
  const [script = ''] = args.command;
  const suites = args.command.length > 0 ? [] : suitesOf(root, args.tests, args.quick);
  if (args.userMode) requireUserMode(suites);
  const tests = script.endsWith('.ts')
    ? await bundleScript(root, script)
    : await bundleTests(root, suites);
  return [
    { path: testProgram, content: tests },
    { path: join(root, 'dist/podwire-cni'), content: await bundleCniProgram(root, node) },
  ];
}

function commandOf({ command }: VmArguments): readonly string[] {
  const [script, ...scriptArguments] = command;
  if (script === undefined) return testCommand;
  return script.endsWith('.ts') ? [...testCommand, ...scriptArguments] : command;
}

/** Nothing is wrong with the tests, but they cannot run here. */
class NoMachine extends Error {}

interface ChosenMachine {
  readonly kind: 'emulated' | 'user-mode';
  readonly speed: keyof typeof slowness;
  readonly command: Machine['command'];
  readonly guest: GuestMachine;
  readonly busybox: string;
  readonly kernel: VmKernel;
}

/** @throws {NoMachine} */
async function chooseMachine(args: VmArguments, signal: AbortSignal): Promise<ChosenMachine> {
  const packages = { signal, say };
  try {
    if (process.arch !== 'x64') throw new Error(`its kernel is for x64, this is ${process.arch}`);
    const name = async (): Promise<string> => 'busybox-static';
    const folder = await unpackedPackage(packages, name, /^busybox-static_/);
    const busybox = join(folder, 'bin/busybox');
    if (args.userMode) {
      const machine = await userModeMachine(packages, busybox);
      if (machine !== undefined) return { ...machine, busybox };
    }
    await call(qemu, ['-version'], signal);
    const kernel = await findKernel(packages, args.kernel, busybox);
    const { countInstructions: countsInstructions } = args;
    const speed = countsInstructions
      ? 'tcg'
      : await chooseAccelerator({ kernelImage: kernel.image, busybox, signal });
    const kind = { accelerator: speed, countsInstructions, shareRoot: true } as const;
    const command = qemuCommand({ ...kind, kernelImage: kernel.image });
    return { kind: 'emulated', speed, command, guest: qemuGuest, busybox, kernel };
  } catch (cause) {
    signal.throwIfAborted();
    throw new NoMachine(`no virtual machine: ${messageOf(cause)}`, { cause });
  }
}

/** Undefined where it cannot be had: not every distribution has it. */
async function userModeMachine(
  packages: Packages,
  busybox: string,
): Promise<Omit<ChosenMachine, 'busybox'> | undefined> {
  const { signal } = packages;
  try {
    const kernel = await findUserModeKernel(packages);
    if (!(await startsUserMode({ image: kernel.image, busybox, signal }))) {
      throw new Error('it does not start here');
    }
    const command = userModeCommand(kernel.image);
    return { kind: 'user-mode', speed: 'native', command, guest: userModeGuest, kernel };
  } catch (error) {
    signal.throwIfAborted();
    say(`no user-mode Linux, an emulated machine in its place: ${messageOf(error)}`);
    return undefined;
  }
}

/** With PODWIRE_VM, which tells tests that what they need must be there: nothing is skipped in the VM. */
const guestEnvironment = {
  PATH: `${join(root, 'node_modules/.bin')}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
  HOME: '/root',
  CI: '1',
  NO_COLOR: '1',
} as const;

/** How many times as long tests may take: hack/vm/patience.ts. */
const slowness = { kvm: '1', native: '3', tcg: '10' } as const;

function say(line: string): void {
  process.stderr.write(`podwire vm: ${line}\n`);
}

const stop = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => stop.abort(signal));
}
// Nobody reads what the machine prints any more.
process.stdout.on('error', () => stop.abort('its output was closed'));
try {
  process.exitCode = await main(parseVmArguments(process.argv.slice(2)), stop.signal);
} catch (error) {
  if (stop.signal.aborted) {
    say(`ended by ${String(stop.signal.reason)}`);
    process.exitCode = noAnswer;
  } else if (error instanceof NoMachine) {
    say(error.message);
    process.exitCode = noMachine;
  } else {
    say(error instanceof TypeError ? `${error.message}\n${usage}` : messageOf(error));
    process.exitCode = 1;
  }
}

/**
 * Disposable network namespaces for tests and the demo: what is done inside touches nothing else,
 * and disposing removes it all.
 */
import { randomBytes } from 'node:crypto';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { systemClock } from '#pkg/clock/clock.ts';
import { runCommand, type CommandOptions, type CommandOutput } from '#pkg/exec/run.ts';

export interface ScratchNetns extends AsyncDisposable {
  /** As `ip netns` lists it. */
  readonly name: string;
  /** For openNetns() and withNetns(). */
  readonly path: string;
  /** Runs a program inside. */
  exec(
    file: string,
    args: readonly string[],
    options?: Partial<CommandOptions>,
  ): Promise<CommandOutput>;
  /** Runs `ip` inside with words as typed: `ip('link add v0 type veth peer name v1')`. */
  ip(words: string): Promise<string>;
  /** The same for many, one after the other, in one process. */
  batch(lines: readonly string[]): Promise<void>;
}

/**
 * For an emulated machine, where a program takes ten seconds to start when others are at work, and some
 * lines start several. A test has its own limit besides, and disposing ends what hangs.
 */
const timeoutMs = 240_000;

/** In the environment of who runs tests: its value is in the names of all namespaces they make. */
export const testRunVariable = 'PODWIRE_TEST_RUN';

/**
 * Makes a namespace with its loopback device up. Disposing kills what still runs inside, then
 * deletes it.
 *
 * @param prefix start of its name; a random end makes it unique on the machine
 */
export async function createScratchNetns(prefix: string): Promise<ScratchNetns> {
  const name = scratchName(prefix);
  await runCommand('ip', ['netns', 'add', name], { timeoutMs });
  const scratch = scratchNetns(name);
  try {
    await scratch.ip('link set lo up');
    return scratch;
  } catch (error) {
    await scratch[Symbol.asyncDispose]();
    throw error;
  }
}

/**
 * Several at once, without their loopback devices up, for who sets them up with `batch`. Programs in
 * them see the machine's own /sys: to mount another for each takes an emulated machine long.
 */
export async function createScratchNetnses<const T extends readonly string[]>(
  prefixes: T,
): Promise<{ readonly [K in keyof T]: ScratchNetns }> {
  const names = prefixes.map(scratchName);
  const input = names.map((name) => `netns add ${name}\n`).join('');
  await runCommand('ip', ['-batch', '-'], { input, timeoutMs });
  return names.map((name) => scratchNetns(name, ['nsenter', `--net=/run/netns/${name}`])) as {
    [K in keyof T]: ScratchNetns;
  };
}

/** One that is there already, by its name. */
export function openScratchNetns(name: string): ScratchNetns {
  return scratchNetns(name);
}

/** A name that nobody else has, and by which what is left of a run of the tests is found. */
export function scratchName(prefix: string): string {
  const run = process.env[testRunVariable];
  return [prefix, ...(run === undefined ? [] : [run]), randomBytes(4).toString('hex')].join('-');
}

function scratchNetns(
  name: string,
  [enter = '', ...entering]: readonly string[] = ['ip', 'netns', 'exec', name],
): ScratchNetns {
  const exec: ScratchNetns['exec'] = (file, args, options = {}) =>
    runCommand(enter, [...entering, file, ...args], { timeoutMs, ...options });
  return {
    name,
    path: `/run/netns/${name}`,
    exec,
    async ip(words) {
      const { stdout } = await runCommand('ip', ['-n', name, ...words.split(' ')], { timeoutMs });
      return stdout;
    },
    async batch(lines) {
      const input = lines.map((line) => `${line}\n`).join('');
      await runCommand('ip', ['-n', name, '-batch', '-'], { input, timeoutMs });
    },
    async [Symbol.asyncDispose]() {
      await killInside(name);
      await runCommand('ip', ['netns', 'del', name], { timeoutMs });
    },
  };
}

/** A process inside would keep the namespace, and all its devices, alive without a name. */
async function killInside(name: string): Promise<void> {
  const deadline = systemClock.now() + timeoutMs;
  for (;;) {
    const { stdout } = await runCommand('ip', ['netns', 'pids', name], { timeoutMs });
    const pids = stdout.split('\n').filter((pid) => pid !== '');
    if (pids.length === 0) return;
    if (systemClock.now() > deadline) {
      throw new AgentError(
        'NetnsBusy',
        `Cannot empty network namespace ${name}: processes ${pids.join(', ')} do not end`,
      );
    }
    // One of them may end by itself meanwhile, and kill(1) then fails: the next look tells.
    await runCommand('kill', ['-KILL', ...pids], { timeoutMs }).catch(() => undefined);
    await systemClock.sleep(20);
  }
}

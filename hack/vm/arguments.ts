/** The command line of `npm run test:vm`. */
import { parseArgs } from 'node:util';

export interface VmArguments {
  /** A version ("6.12"), the path of a Debian package, or undefined for the release's own kernel. */
  readonly kernel: string | undefined;
  readonly timeoutSeconds: number;
  /** Of the named files only what needs the VM. */
  readonly quick: boolean;
  /** Time in there is what was executed: figures do not depend on what else this machine does. */
  readonly countInstructions: boolean;
  /**
   * In user-mode Linux where that can be had, which is several times as fast: for tests that need nothing
   * it lacks (suites.ts).
   */
  readonly userMode: boolean;
  /** For vitest; every suite that needs the VM when empty. */
  readonly tests: readonly string[];
  /** Everything behind `--`, to run in the place of tests: a command, or a program of ours (.ts). */
  readonly command: readonly string[];
}

export const usage =
  'usage: npm run test:vm -- [--kernel VERSION|PACKAGE.deb] [--timeout SECONDS] [--quick] [--count-instructions | --user-mode] [FILE...] [-- COMMAND...]';

/** A day; longer than a month a timer cannot wait. */
const maxSeconds = 86_400;

/** @throws {TypeError} when an option is unknown or has no proper value */
export function parseVmArguments(argv: readonly string[]): VmArguments {
  const end = argv.indexOf('--');
  const { values, positionals } = parseArgs({
    args: end < 0 ? [...argv] : argv.slice(0, end),
    allowPositionals: true,
    options: {
      kernel: { type: 'string' },
      timeout: { type: 'string', default: '600' },
      quick: { type: 'boolean', default: false },
      'count-instructions': { type: 'boolean', default: false },
      'user-mode': { type: 'boolean', default: false },
    },
  });
  const timeoutSeconds = Number(values.timeout);
  if (!Number.isInteger(timeoutSeconds) || timeoutSeconds < 1 || timeoutSeconds > maxSeconds) {
    throw new TypeError(
      `Cannot use --timeout ${values.timeout}: expected 1 to ${maxSeconds} seconds`,
    );
  }
  if (values.kernel === '')
    throw new TypeError('Cannot use --kernel: expected a version or package');
  if (values['user-mode'] && (values['count-instructions'] || values.kernel !== undefined)) {
    throw new TypeError(
      'Cannot use --user-mode with --kernel or --count-instructions: it has one kernel, and is no emulation',
    );
  }
  return {
    kernel: values.kernel,
    timeoutSeconds,
    quick: values.quick,
    countInstructions: values['count-instructions'],
    userMode: values['user-mode'],
    tests: positionals,
    command: end < 0 ? [] : argv.slice(end + 1),
  };
}

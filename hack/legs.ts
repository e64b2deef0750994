/** Commands that run at one time: the first has the terminal, what the others print is kept. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { UnnamedFile } from './unnamed-file.ts';

export type Command = readonly [file: string, ...args: string[]];

export interface Leg {
  /** Run one after the other, whatever becomes of each. */
  readonly commands: readonly Command[];
  /** As nice(1) has it: those with less of it go first. */
  readonly niceness: number;
}

/** Of one command. */
export interface Ended extends Disposable {
  readonly command: Command;
  /** Undefined when a signal ended it. */
  readonly exitCode: number | undefined;
  /** Empty for those of the first leg. */
  readonly output: UnnamedFile;
}

/** What a command has for an orderly end. */
const orderlyMs = 20_000;

/**
 * Runs all legs to their ends, and says how each one's commands ended. They are told by SIGTERM when the
 * signal aborts, after which none begins, and when this process ends without a word.
 */
export async function runLegs(legs: readonly Leg[], signal: AbortSignal): Promise<Ended[][]> {
  return await Promise.all(
    legs.map(async ({ commands, niceness }, i) => {
      const ended: Ended[] = [];
      for (const command of commands) {
        if (signal.aborted) break;
        ended.push(await run(command, { niceness, isFirst: i === 0, signal }));
      }
      return ended;
    }),
  );
}

async function run(
  command: Command,
  of: { readonly niceness: number; readonly isFirst: boolean; readonly signal: AbortSignal },
): Promise<Ended> {
  const { isFirst, niceness, signal } = of;
  const output = new UnnamedFile();
  const { fd } = output;
  const start = ['--pdeathsig', 'TERM', 'nice', '-n', `${niceness}`, ...command];
  const child = spawn('setpriv', start, {
    stdio: isFirst ? 'inherit' : ['ignore', fd, fd],
  });
  let force: NodeJS.Timeout | undefined;
  const stop = (): void => {
    child.kill('SIGTERM');
    force = setTimeout(() => child.kill('SIGKILL'), orderlyMs);
  };
  signal.addEventListener('abort', stop, { once: true });
  try {
    const [code] = (await once(child, 'exit')) as [number | null];
    return {
      command,
      exitCode: code ?? undefined,
      output,
      [Symbol.dispose]: () => output[Symbol.dispose](),
    };
  } finally {
    clearTimeout(force);
    signal.removeEventListener('abort', stop);
  }
}

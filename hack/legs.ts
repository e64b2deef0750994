/** Commands that run at one time: the first has the terminal, what the others print is kept. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { UnnamedFile } from './unnamed-file.ts';

export interface Leg {
  readonly command: readonly [file: string, ...args: string[]];
  /** As nice(1) has it: those with less of it go first. */
  readonly niceness: number;
}

export interface EndedLeg extends Disposable {
  /** Undefined when a signal ended it. */
  readonly exitCode: number | undefined;
  /** Empty for the first. */
  readonly output: UnnamedFile;
}

/** What a command has for an orderly end. */
const orderlyMs = 20_000;

/**
 * Runs all to their ends. They are told by SIGTERM when the signal aborts, and when this process ends
 * without a word.
 */
export async function runLegs(legs: readonly Leg[], signal: AbortSignal): Promise<EndedLeg[]> {
  return await Promise.all(legs.map((leg, i) => runLeg(leg, i === 0, signal)));
}

async function runLeg(leg: Leg, isFirst: boolean, signal: AbortSignal): Promise<EndedLeg> {
  const output = new UnnamedFile();
  const { fd } = output;
  const start = ['--pdeathsig', 'TERM', 'nice', '-n', `${leg.niceness}`, ...leg.command];
  const child = spawn('setpriv', start, {
    stdio: isFirst ? 'inherit' : ['ignore', fd, fd],
  });
  let force: NodeJS.Timeout | undefined;
  const stop = (): void => {
    child.kill('SIGTERM');
    force = setTimeout(() => child.kill('SIGKILL'), orderlyMs);
  };
  if (signal.aborted) stop();
  signal.addEventListener('abort', stop, { once: true });
  try {
    const [code] = (await once(child, 'exit')) as [number | null];
    return {
      exitCode: code ?? undefined,
      output,
      [Symbol.dispose]: () => output[Symbol.dispose](),
    };
  } finally {
    clearTimeout(force);
    signal.removeEventListener('abort', stop);
  }
}

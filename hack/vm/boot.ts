/** Boots the machine and says how its command went. */
import { runMachine, type Ended, type Machine } from './machine.ts';

export interface Boot {
  readonly timeoutSeconds: number;
  readonly signal: AbortSignal;
  /** Told what the machine prints, as it comes. */
  readonly onOutput: (bytes: Uint8Array) => void;
  /** Told what became of the machine itself, a line each. */
  readonly say: (line: string) => void;
}

/** When there can be no machine here: no answer about the tests. */
export const noMachine = 2;
/** When the machine ended without saying how they went. */
export const noAnswer = 3;

const maxAttempts = 3;

/**
 * The exit code of the command in the machine, 1 in the place of {@link noMachine}; else
 * {@link noAnswer}.
 *
 * Again, when the machine died before it had a word to say: no test has begun, and a busy machine can
 * bring an emulated one to that.
 */
export async function bootAndRun(machine: Machine, boot: Boot): Promise<number> {
  const { say, timeoutSeconds } = boot;
  const startedMs = performance.now();
  const seconds = (): number => (performance.now() - startedMs) / 1000;
  for (let attempt = 1; ; attempt++) {
    let last: number | undefined;
    const onOutput = (bytes: Uint8Array): void => {
      last = bytes.at(-1) ?? last;
      boot.onOutput(bytes);
    };
    const left = Math.max(0, timeoutSeconds - seconds());
    const ended = await runMachine(machine, { ...boot, timeoutSeconds: left, onOutput });
    if (last !== undefined && last !== newline) boot.onOutput(Buffer.from('\n'));
    say(`ended after ${seconds().toFixed(1)} s`);
    const code = exitCode(machine);
    if (code !== undefined) return code === noMachine ? 1 : code;
    if (ended === 'by itself' && last === undefined && attempt < maxAttempts) {
      say('the machine died while it started; once more');
      continue;
    }
    say(`the machine gave no exit code (${wordsFor(ended, timeoutSeconds)}); its console:`);
    say(lastLines(machine.console.read().toString(), 40));
    return noAnswer;
  }
}

const newline = 10;

function wordsFor(ended: Ended, timeoutSeconds: number): string {
  if (ended === 'timeout') return `not finished after ${timeoutSeconds} s`;
  return ended === 'signal' ? 'ended by a signal' : 'ended by itself';
}

function exitCode(machine: Machine): number | undefined {
  const text = machine.exitCode.read().toString().trim();
  return /^\d+$/.test(text) ? Number(text) : undefined;
}

function lastLines(text: string, count: number): string {
  return text.trimEnd().split(/\r?\n/).slice(-count).join('\n');
}

/** Boots the machine and says how its command went. */
import { existsSync, readFileSync } from 'node:fs';
import { runMachine, type Ended, type Machine } from './qemu.ts';

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
 * Again, when the machine died before it had a word to say: kernels patch their own code while they
 * start, which an emulated processor sometimes takes amiss (6.12: "Oops: int3").
 */
export async function bootAndRun(machine: Machine, boot: Boot): Promise<number> {
  const { say, timeoutSeconds } = boot;
  const startedMs = performance.now();
  for (let attempt = 1; ; attempt++) {
    let hasPrinted = false;
    const onOutput = (bytes: Uint8Array): void => {
      hasPrinted = true;
      boot.onOutput(bytes);
    };
    const ended = await runMachine(machine, { ...boot, onOutput });
    say(`ended after ${((performance.now() - startedMs) / 1000).toFixed(1)} s`);
    const code = exitCode(machine.exitCodeFile);
    if (code !== undefined) return code === noMachine ? 1 : code;
    if (ended === 'by itself' && !hasPrinted && attempt < maxAttempts) {
      say('the machine died while it started; once more');
      continue;
    }
    say(`the machine gave no exit code (${wordsFor(ended, timeoutSeconds)}); its console:`);
    say(lastLines(machine.consoleLog, 40));
    return noAnswer;
  }
}

function wordsFor(ended: Ended, timeoutSeconds: number): string {
  if (ended === 'timeout') return `not finished after ${timeoutSeconds} s`;
  return ended === 'signal' ? 'ended by a signal' : 'ended by itself';
}

function exitCode(path: string): number | undefined {
  const text = existsSync(path) ? readFileSync(path, 'utf8').trim() : '';
  return /^\d+$/.test(text) ? Number(text) : undefined;
}

function lastLines(path: string, count: number): string {
  if (!existsSync(path)) return '';
  return readFileSync(path, 'utf8').split('\n').slice(-count).join('\n');
}

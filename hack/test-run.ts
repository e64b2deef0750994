/**
 * What a run of the tests makes carries its number: processes in their environment, network namespaces in
 * their names. So that what is left of one that was stopped can be told from what others have.
 */
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { openScratchNetns, testRunVariable } from '#pkg/netns/scratch.ts';

/** How long processes may take to be gone: one in the middle of a system call ends after it. */
const limitMs = 60_000;

/** Gives all that this process starts from now on the number of a new run, and returns that. */
export function beginTestRun(): string {
  return (process.env[testRunVariable] = randomBytes(4).toString('hex'));
}

/**
 * Ends all processes of a run at once and removes its network namespaces. Not this process itself: it was
 * there before the run.
 *
 * @returns what there was, a line each
 * @throws {Error} when a process does not end
 */
export async function removeRemains(run: string): Promise<readonly string[]> {
  const found = new Map<number, string>();
  for (const deadlineMs = performance.now() + limitMs; ; await sleep(20)) {
    const pids = processesOf(run);
    if (pids.length === 0) break;
    if (performance.now() > deadlineMs) {
      throw new Error(`Cannot end what the tests left: processes ${pids.join(', ')}`);
    }
    for (const pid of pids) {
      if (!found.has(pid)) found.set(pid, `process ${pid} ${wordsOf(pid).slice(0, 150)}`);
      kill(pid);
    }
  }
  const names = namespacesOf(run);
  for (const name of names) await openScratchNetns(name)[Symbol.asyncDispose]();
  return [...found.values(), ...names.map((name) => `network namespace ${name}`)];
}

function processesOf(run: string): readonly number[] {
  const mark = `${testRunVariable}=${run}`;
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => pid > 0 && pid !== process.pid)
    .filter((pid) => read(pid, 'environ').split('\0').includes(mark));
}

function namespacesOf(run: string): readonly string[] {
  try {
    return readdirSync('/run/netns').filter((name) => name.includes(`-${run}-`));
  } catch (error) {
    // Nobody has made one since the machine started.
    if (isErrno(error, 'ENOENT')) return [];
    throw error;
  }
}

/** Empty for one that has just ended, and for those of others. */
function read(pid: number, file: 'environ' | 'cmdline'): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return '';
  }
}

function wordsOf(pid: number): string {
  return read(pid, 'cmdline').replaceAll('\0', ' ').trim();
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (!isErrno(error, 'ESRCH')) throw error;
  }
}

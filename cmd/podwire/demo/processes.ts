/**
 * Long-lived programs of a run. Each carries the run's id in its environment, which its own
 * children inherit: this, and not a number written down somewhere, is how they are found again.
 */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { systemClock } from '#pkg/clock/clock.ts';
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import type { RunFolder } from './run-folder.ts';

const marker = 'PODWIRE_DEMO_RUN';

export interface ProgramSpec {
  /** Names its log, and the program in messages. */
  readonly name: string;
  readonly file: string;
  readonly args: readonly string[];
  /** The network namespace it runs in; the machine's own when undefined. */
  readonly namespace?: string;
}

export interface Program {
  readonly name: string;
  readonly pid: number;
  readonly logPath: string;
  /** Resolves when it has ended, with how it ended. */
  readonly ended: Promise<string>;
  readonly hasEnded: () => boolean;
}

/** Starts a program in a session of its own: Ctrl-C on the terminal is for the demo alone. */
export function startProgram(run: RunFolder, spec: ProgramSpec): Program {
  const logPath = join(run.path, 'logs', `${spec.name}.log`);
  const log = openSync(logPath, 'a', 0o600);
  const [file, ...args] = inNamespace(spec.namespace, [spec.file, ...spec.args]);
  const child = spawn(file, args, {
    cwd: '/',
    env: programEnv(run.id),
    detached: true,
    stdio: ['ignore', log, log],
  });
  closeSync(log);
  let over = false;
  const ended = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(`did not start: ${error.message}`));
    child.once('exit', (code, signal) => resolve(signal ?? `exit code ${code}`));
  }).finally(() => (over = true));
  child.unref();
  if (child.pid === undefined) {
    throw new AgentError('CommandMissing', `Cannot start ${spec.name}: ${file} did not start`);
  }
  return { name: spec.name, pid: child.pid, logPath, ended, hasEnded: () => over };
}

/** What every program of a run finds in its environment, and nothing else of ours. */
export function programEnv(runId: string): Record<string, string> {
  return { PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin', LC_ALL: 'C', [marker]: runId };
}

/** The command that runs `command` inside a named network namespace. */
export function inNamespace(
  namespace: string | undefined,
  command: readonly [string, ...string[]],
): [string, ...string[]] {
  if (namespace === undefined) return [...command];
  return ['nsenter', `--net=/run/netns/${namespace}`, '--', ...command];
}

/** Ends one program: asks first, and after `patienceMs` no longer. */
export async function stopProgram(program: Program, patienceMs = 5000): Promise<void> {
  if (program.hasEnded()) return;
  signalProcess(program.pid, 'SIGTERM');
  const patience = new AbortController();
  await Promise.race([program.ended, systemClock.sleep(patienceMs, patience.signal)]).finally(() =>
    patience.abort(),
  );
  if (!program.hasEnded()) signalProcess(program.pid, 'SIGKILL');
  await program.ended;
}

/** Ends whatever still carries the run's id. Resolves when none of it is left. */
export async function stopRunProcesses(runId: string, patienceMs = 3000): Promise<void> {
  const startMs = Date.now();
  const asked = new Set<number>();
  for (;;) {
    // Looked up again each time: a number may meanwhile belong to somebody else.
    const pids = runProcesses(runId);
    if (pids.length === 0) return;
    const waitedMs = Date.now() - startMs;
    if (waitedMs > patienceMs + 10_000) {
      throw new AgentError(
        'StillRunning',
        `Cannot end processes ${pids.join(', ')} of run ${runId}`,
      );
    }
    for (const pid of pids) {
      if (waitedMs > patienceMs) signalProcess(pid, 'SIGKILL');
      else if (!asked.has(pid)) signalProcess(pid, 'SIGTERM');
      asked.add(pid);
    }
    await systemClock.sleep(30);
  }
}

/** The processes that carry the run's id. A process that has ended carries nothing. */
function runProcesses(runId: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((pid) => readOwn(`/proc/${pid}/environ`)?.split('\0').includes(`${marker}=${runId}`))
    .map(Number);
}

/** When a process started (proc(5), stat field 22); undefined when there is none. */
export function startTicks(pid: number): string | undefined {
  const stat = readOwn(`/proc/${pid}/stat`);
  // The second field is the program's name in parentheses and may hold blanks and parentheses.
  return stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
}

function signalProcess(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (!isErrno(error, 'ESRCH')) throw error;
  }
}

function readOwn(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    for (const code of ['ENOENT', 'ESRCH', 'EACCES', 'EPERM'])
      if (isErrno(error, code)) return undefined;
    throw error;
  }
}

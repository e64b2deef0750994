/** Runs other programs, never through a shell. For daemons and tests; not on the CNI path. */
import { execa, ExecaError } from 'execa';
import { AgentError } from '#pkg/errors/agent-error.ts';

export interface CommandOptions {
  /** Given on standard input; empty when undefined. */
  readonly input?: string;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

export interface CommandOutput {
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs a program to its end and returns what it printed, without the last newline. A program that
 * outlives `timeoutMs` or the signal gets SIGTERM, and SIGKILL when that does not help.
 *
 * @throws {AgentError} CommandMissing when there is no such program; CommandTimedOut;
 *   CommandFailed with the exit code in `details` and what it printed on stderr in the message; the
 *   signal's reason when aborted
 */
export async function runCommand(
  file: string,
  args: readonly string[],
  options: CommandOptions,
): Promise<CommandOutput> {
  options.signal?.throwIfAborted();
  try {
    const { stdout, stderr } = await execa(file, args, {
      input: options.input ?? '',
      timeout: options.timeoutMs,
      forceKillAfterDelay: 2_000,
      maxBuffer: 256 * 1024 * 1024,
      ...(options.signal === undefined ? {} : { cancelSignal: options.signal }),
    });
    return { stdout, stderr };
  } catch (error) {
    options.signal?.throwIfAborted();
    if (error instanceof ExecaError) throw commandError(file, args, options, error);
    throw error;
  }
}

function commandError(
  file: string,
  args: readonly string[],
  options: CommandOptions,
  error: ExecaError,
): AgentError {
  const line = [file, ...args].join(' ');
  if (error.code === 'ENOENT') {
    return new AgentError('CommandMissing', `Cannot run ${file}: there is no such program`, {
      cause: error,
    });
  }
  if (error.timedOut) {
    return new AgentError(
      'CommandTimedOut',
      // Not with its cause, whose message repeats all that the program printed.
      `Cannot run ${line}: not finished after ${options.timeoutMs} ms`,
    );
  }
  const stderr = typeof error.stderr === 'string' ? error.stderr.trim() : '';
  const ended =
    error.exitCode === undefined
      ? `ended by ${error.signal ?? error.code ?? 'an unknown cause'}`
      : `exit code ${error.exitCode}`;
  return new AgentError(
    'CommandFailed',
    `Cannot run ${line}: ${ended}${stderr === '' ? '' : `: ${stderr}`}`,
    { details: { exitCode: error.exitCode, signal: error.signal, stderr } },
  );
}

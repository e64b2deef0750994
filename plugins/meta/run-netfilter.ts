/** Runs the programs that change the kernel's packet filter, for plugins: synchronously. */
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import type { ProgramOutcome } from '#pkg/cni/delegate.ts';
import type { CniRequest } from '#pkg/cni/plugin.ts';
import type { CniSystem } from '#plugins/cni-system.ts';

/** A program found in the PATH of the runtime that called us; returns its standard output. */
export type RunNetfilter = (file: string, args: readonly string[], input?: string) => string;

/**
 * @returns a function that throws AgentError CommandMissing when there is no such program, and
 *   CommandFailed with what it said when it fails
 */
export function netfilterRunner(system: CniSystem, request: CniRequest): RunNetfilter {
  // Their messages are matched in places.
  const environment = { ...request.environment, LC_ALL: 'C' };
  return (file, args, input = '') => {
    const {
      exitCode,
      stdout,
      stderr = '',
    } = run(file, () => system.runProgram(file, { args, input, environment, captureStderr: true }));
    if (exitCode === 0) return stdout;
    const how = exitCode === undefined ? 'it was killed' : `it exited with ${exitCode}`;
    const said = stderr.trim().replaceAll(/\s*\n\s*/g, '; ');
    throw new AgentError(
      'CommandFailed',
      `Cannot run ${[file, ...args].join(' ')}: ${said === '' ? how : said}`,
      { details: { exitCode, stderr } },
    );
  };
}

function run(file: string, call: () => ProgramOutcome): ProgramOutcome {
  try {
    return call();
  } catch (cause) {
    if (!isErrno(cause, 'ENOENT')) throw cause;
    throw new AgentError('CommandMissing', `Cannot run ${file}: there is no such program in PATH`, {
      cause,
    });
  }
}

/** Running other programs: plugins we delegate to, iptables, nft. */
import { isErrno } from '#pkg/errors/agent-error.ts';
import type { RunProgram } from '#pkg/cni/delegate.ts';

/**
 * @param onStderr gets what programs say on standard error that nobody captures; without it, that
 *   goes where ours goes
 */
export function programRunner(onStderr?: (text: string) => void): RunProgram {
  return (file, { args = [], input, environment, captureStderr = false }) => {
    // Loaded only here: few calls run another program, all would pay for it.
    const { spawnSync } = process.getBuiltinModule('node:child_process');
    const piped = captureStderr || onStderr !== undefined;
    const { status, stdout, stderr, error } = spawnSync(file, args, {
      input,
      env: environment,
      stdio: ['pipe', 'pipe', piped ? 'pipe' : 'inherit'],
      // iptables-save on a node with many Services prints tens of megabytes.
      maxBuffer: 256 * 1024 * 1024,
    });
    // EPIPE: the program did not read its input to the end. Its answer counts.
    if (error !== undefined && !isErrno(error, 'EPIPE')) throw error;
    if (!captureStderr) onStderr?.(stderr.toString());
    return {
      exitCode: status ?? undefined,
      stdout: stdout.toString(),
      ...(captureStderr ? { stderr: stderr.toString() } : {}),
    };
  };
}

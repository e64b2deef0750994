/** Runs the machine's nft. */
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import { runCommand } from '#pkg/exec/run.ts';
import type { NftCommand } from '#pkg/nftables/observe.ts';

/** A healthy nft needs milliseconds; a kernel that is short of memory can take long to commit. */
const timeoutMs = 30_000;

export const runNft: NftCommand = async (args, input, signal) => {
  try {
    const options = input === undefined ? {} : { input };
    const { stdout } = await runCommand('nft', args, { ...options, timeoutMs, signal });
    return stdout;
  } catch (cause) {
    if (!isErrno(cause, 'CommandMissing')) throw cause;
    throw new AgentError(
      'NftMissing',
      'Cannot masquerade pod traffic: there is no program nft; install the package nftables, or set masquerade: false',
      { cause },
    );
  }
};

/** Whether the machine has the program. */
export async function hasNft(signal: AbortSignal): Promise<boolean> {
  try {
    await runCommand('nft', ['--version'], { timeoutMs, signal });
    return true;
  } catch (error) {
    if (isErrno(error, 'CommandMissing')) return false;
    throw error;
  }
}

/** What plugins need of the process and machine they run on. */
import type { CniPlugin } from '#pkg/cni/plugin.ts';
import type { RunProgram } from '#pkg/cni/delegate.ts';
import type { AgentError } from '#pkg/errors/agent-error.ts';
import type { Sys } from '#pkg/sys/sys.ts';

export interface CniSystem {
  readonly sys: Sys;
  /** Runs a plugin that is not ours. */
  readonly runProgram: RunProgram;
  /** Our own plugins that others may delegate to, by type. */
  readonly delegates: ReadonlyMap<string, CniPlugin>;
  /** Ends the process at once: it could not return to its network namespace. */
  readonly die: (error: AgentError) => never;
}

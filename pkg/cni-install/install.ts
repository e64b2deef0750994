/** Puts the CNI plugins where a container runtime looks for them, and takes them away again. */
import { open } from 'node:fs/promises';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { makeDirectory } from '#pkg/files/make-directory.ts';
import { LOCK_EX } from '#pkg/sys/constants.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { applyInstallStep } from './apply.ts';
import { observePlugins } from './observe.ts';
import { planInstall, planRemoval, type InstallPlan, type PluginDirectory } from './plan.ts';
import type { PluginSource } from './plugin-files.ts';

export interface InstallReport {
  /** Names of the plugins, and of their executable, that changed. */
  readonly changed: readonly string[];
  /** Names that stay with somebody else's file. */
  readonly left: readonly string[];
}

/**
 * Installs or upgrades. Files that are right already are not touched, others' are left alone unless
 * `replaceForeign`; then they are kept aside.
 *
 * @throws {AgentError} InstallFailed; every name leads to an old file or a new one, and the next
 *   call goes on
 */
export function installPlugins(
  sys: Sys,
  directory: string,
  { source, replaceForeign }: { readonly source: PluginSource; readonly replaceForeign: boolean },
): Promise<InstallReport> {
  return change(sys, { directory, source, verb: 'install' }, (have) =>
    planInstall(have, { names: source.names, replaceForeign }),
  );
}

/**
 * Removes what {@link installPlugins} put, and puts back what that had replaced.
 *
 * @throws {AgentError} InstallFailed
 */
export function removePlugins(
  sys: Sys,
  directory: string,
  source: PluginSource,
): Promise<InstallReport> {
  return change(sys, { directory, source, verb: 'remove' }, (have) =>
    planRemoval(have, { names: source.names }),
  );
}

interface Change {
  readonly directory: string;
  readonly source: PluginSource;
  readonly verb: string;
}

async function change(
  sys: Sys,
  { directory, source, verb }: Change,
  plan: (have: PluginDirectory) => InstallPlan,
): Promise<InstallReport> {
  try {
    makeDirectory(directory, 0o755);
    // One installer at a time, or one would clear the other's unfinished files away.
    await using lock = await open(directory);
    sys.flock(lock.fd, LOCK_EX);
    const { steps, left } = plan(await observePlugins(directory, source));
    for (const step of steps) await applyInstallStep(directory, step, source);
    await lock.sync();
    const changed = steps.flatMap((step) => (step.op === 'clear' ? [] : [step.name]));
    return { changed, left };
  } catch (cause) {
    throw new AgentError('InstallFailed', `Cannot ${verb} CNI plugins in ${directory}`, { cause });
  }
}

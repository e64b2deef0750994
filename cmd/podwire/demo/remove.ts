/** Removes a run, whole or in part: what its owner does at the end, and others do for it. */
import { deleteNetwork } from './namespaces.ts';
import { stopRunProcesses } from './processes.ts';
import { findRuns, removeRunFolder, type FoundRun, type RunFolder } from './run-folder.ts';

/** Ends its processes, then its namespaces with all links in them, then its folder. */
export async function removeRun(run: RunFolder): Promise<void> {
  await stopRunProcesses(run.id);
  await deleteNetwork(run.id);
  removeRunFolder(run);
}

/** Removes every run of these statuses and returns what was removed. */
export async function removeRuns(statuses: readonly FoundRun['status'][]): Promise<FoundRun[]> {
  const runs = findRuns().filter((run) => statuses.includes(run.status));
  for (const run of runs) await removeRun(run);
  return runs;
}

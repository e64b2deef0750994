/** `podwire install` and `podwire uninstall`: the CNI plugins in a container runtime's directory. */
import { messageOf } from '#pkg/errors/agent-error.ts';
import { installPlugins, removePlugins, type InstallReport } from '#pkg/cni-install/install.ts';
import type { PluginSource } from '#pkg/cni-install/plugin-files.ts';
import { openSys } from '#pkg/sys/open-sys.ts';

export interface InstallTask {
  readonly binDir: string;
  readonly source: PluginSource;
  /** Gets a line for people. */
  readonly say: (line: string) => void;
}

/** Exit code 0: all that was asked for is there. 1: it could not be done, and why was said. */
export function runInstall(
  task: InstallTask & { readonly replaceReferencePlugins: boolean },
): Promise<0 | 1> {
  const { binDir, source, say, replaceReferencePlugins: replaceForeign } = task;
  return attempt(say, async () => {
    const report = await installPlugins(await openSys(), binDir, { source, replaceForeign });
    tell(task, 'installed', report);
    if (report.left.length > 0) say('to replace them too: --replace-reference-plugins');
  });
}

/** Removes ours and puts back what they had replaced. */
export function runUninstall(task: InstallTask): Promise<0 | 1> {
  const { binDir, source, say } = task;
  return attempt(say, async () => {
    tell(task, 'removed', await removePlugins(await openSys(), binDir, source));
  });
}

function tell({ binDir, say }: InstallTask, done: string, { changed, left }: InstallReport): void {
  say(
    changed.length === 0 ? `nothing to do in ${binDir}` : `${done} in ${binDir}: ${list(changed)}`,
  );
  if (left.length > 0) say(`left alone, not ours: ${list(left)}`);
}

function list(names: readonly string[]): string {
  return names.join(', ');
}

async function attempt(say: (line: string) => void, work: () => Promise<void>): Promise<0 | 1> {
  try {
    await work();
    return 0;
  } catch (error) {
    say(messageOf(error));
    return 1;
  }
}

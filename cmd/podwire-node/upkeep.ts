/**
 * What of ours changes without a word: settings under /proc/sys, of which the kernel tells only some,
 * and files. `sysctl --system`, as packages run it, and a cleaning of /etc/cni are the usual ways.
 */
import type { Sysctl } from '#pkg/host-network/object.ts';
import type { PluginInstaller } from './plugin-installer.ts';
import type { WrittenFiles } from './written-files.ts';

export interface Upkeep {
  /** That the daemon wants. */
  readonly settings: Iterable<Sysctl>;
  /** Undefined when the kernel has no such setting. */
  readonly read: (path: string) => string | undefined;
  readonly files: Pick<WrittenFiles, 'notAsWritten'>;
  /** Undefined = they are somebody else's to install. */
  readonly plugins?: Pick<PluginInstaller, 'state'> | undefined;
}

/** Another text than before: something has changed. */
export function upkeepText({ settings, read, files, plugins }: Upkeep): string {
  const values = [...settings].map(({ path }) => `${path} ${read(path) ?? ''}`);
  return [...values, ...files.notAsWritten(), plugins?.state() ?? ''].join('\n');
}

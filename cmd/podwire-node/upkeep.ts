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
  readonly files: Pick<WrittenFiles, 'notAsWritten' | 'writes'>;
  /** Undefined = they are somebody else's to install. */
  readonly plugins?: Pick<PluginInstaller, 'state'> | undefined;
}

/**
 * Other texts than before: something has changed. A file or plugin that is wrong again, after it was
 * mended between two looks, has another one, too.
 */
export function upkeepState({
  settings,
  read,
  files,
  plugins,
}: Upkeep): ReadonlyMap<string, string> {
  const state = new Map([...settings].map(({ path }) => [path, read(path) ?? '']));
  for (const path of files.notAsWritten()) state.set(path, `${files.writes}`);
  const ofPlugins = plugins?.state() ?? '';
  if (ofPlugins !== '') state.set('plugins', ofPlugins);
  return state;
}

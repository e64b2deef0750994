/** Where a program of ours finds the CNI plugins to install: beside itself. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { PluginSource } from '#pkg/cni-install/plugin-files.ts';
import { pluginNames } from '#plugins/plugin-names.ts';

/** As source this file is in cmd/, in a bundle it is in dist/. */
const dist = import.meta.filename.endsWith('.ts')
  ? join(import.meta.dirname, '../dist')
  : import.meta.dirname;

/** The build's files; without a C compiler there is no launcher. */
export function pluginSource(directory = dist): PluginSource {
  const launcher = join(directory, 'podwire-cni-launcher');
  return {
    executable: join(directory, 'podwire-cni'),
    launcher: existsSync(launcher) ? launcher : undefined,
    names: pluginNames,
  };
}

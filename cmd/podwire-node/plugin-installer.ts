/** Keeps the CNI plugins where the container runtime looks for them. */
import { lstat } from 'node:fs/promises';
import { join } from 'node:path';
import { installPlugins } from '#pkg/cni-install/install.ts';
import { executableName } from '#pkg/cni-install/plan.ts';
import type { PluginSource } from '#pkg/cni-install/plugin-files.ts';
import type { Logger } from '#pkg/log/logger.ts';
import type { Sys } from '#pkg/sys/sys.ts';

export interface PluginInstaller {
  /** Installs what is missing, changed or of another version since the last call. */
  ensure(): Promise<void>;
}

/** Comparing the files' contents takes a tenth of a second: only after somebody changed them. */
export function createPluginInstaller(
  sys: Sys,
  options: {
    readonly binDir: string;
    readonly source: PluginSource;
    readonly replaceForeign: boolean;
    readonly log: Pick<Logger, 'info' | 'warn'>;
  },
): PluginInstaller {
  const { binDir, source, replaceForeign, log } = options;
  const look = (): Promise<string> => signature(binDir, source);
  let seen: string | undefined;
  return {
    async ensure() {
      if (seen !== undefined && (await look()) === seen) return;
      const { changed, left } = await installPlugins(sys, binDir, { source, replaceForeign });
      if (changed.length > 0) log.info({ binDir, changed }, 'Installed CNI plugins');
      if (left.length > 0) {
        const hint = 'to replace them too, set replaceReferencePlugins';
        log.warn({ binDir, left, hint }, 'Left CNI plugins of others alone');
      }
      seen = await look();
    },
  };
}

/** Differs when a file does; rename and write both change it. */
async function signature(binDir: string, { names }: PluginSource): Promise<string> {
  const parts = [executableName, ...names].map(async (name) => {
    try {
      const { dev, ino, size, mode, ctimeNs } = await lstat(join(binDir, name), { bigint: true });
      return [dev, ino, size, mode, ctimeNs].join(' ');
    } catch {
      return '';
    }
  });
  return (await Promise.all(parts)).join(',');
}

/** Keeps the CNI plugins where the container runtime looks for them. */
import { lstatSync } from 'node:fs';
import { join } from 'node:path';
import { installPlugins } from '#pkg/cni-install/install.ts';
import { executableName } from '#pkg/cni-install/plan.ts';
import type { PluginSource } from '#pkg/cni-install/plugin-files.ts';
import type { Logger } from '#pkg/log/logger.ts';
import type { Sys } from '#pkg/sys/sys.ts';

export interface PluginInstaller {
  /** Installs what is missing, changed or of another version since the last call. */
  ensure(): Promise<void>;
  /** Another text when what is installed is not as the last call left it. Synchronous: a few names. */
  state(): string;
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
  const look = (): string => signature(binDir, source);
  let seen: string | undefined;
  let times = 0;
  return {
    async ensure() {
      if (seen !== undefined && look() === seen) return;
      const { changed, left } = await installPlugins(sys, binDir, { source, replaceForeign });
      if (changed.length > 0) log.info({ binDir, changed }, 'Installed CNI plugins');
      if (left.length > 0) {
        const hint = 'to replace them too, set replaceReferencePlugins';
        log.warn({ binDir, left, hint }, 'Left CNI plugins of others alone');
      }
      seen = look();
      times += 1;
    },
    state: () => (seen === undefined || look() === seen ? '' : `not as left ${times} times`),
  };
}

/** Differs when a file does; rename and write both change it. */
function signature(binDir: string, { names }: PluginSource): string {
  const parts = [executableName, ...names].map((name) => {
    try {
      const { dev, ino, size, mode, ctimeNs } = lstatSync(join(binDir, name), { bigint: true });
      return [dev, ino, size, mode, ctimeNs].join(' ');
    } catch {
      return '';
    }
  });
  return parts.join(',');
}

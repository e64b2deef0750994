/** Files by which others learn of the node's network. */
import { join } from 'node:path';
import { pluginSource } from '#cmd/plugin-source.ts';
import type { NodeConfig } from '#pkg/config/node-config.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { conflistText } from '#pkg/pod-network/conflist.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { createPluginInstaller, type PluginInstaller } from './plugin-installer.ts';
import type { NetworkFiles } from './round-parts.ts';
import type { WrittenFiles } from './written-files.ts';

/** Undefined: somebody else installs the plugins. */
export function pluginInstaller(
  sys: Sys,
  config: NodeConfig,
  log: Logger,
): PluginInstaller | undefined {
  const { cniBinDir: binDir, replaceReferencePlugins: replaceForeign } = config;
  if (binDir === undefined) return undefined;
  return createPluginInstaller(sys, { binDir, source: pluginSource(), replaceForeign, log });
}

/** node.json, the conflist and flannel's subnet.env, where they are wanted. */
export function createNetworkFiles(
  config: NodeConfig,
  parts: { readonly written: WrittenFiles; readonly plugins: PluginInstaller | undefined },
): NetworkFiles {
  const { plugins, written } = parts;
  const subnetFile = subnetFileOf(config);
  const nodeFile = join(config.runDir, 'node.json');
  const conflist = conflistText({ ...config, nodeFile, ipamDataDir: config.cniDataDir });
  return {
    writeNodeFile: async (text) => void (await written.write(nodeFile, text)),
    writeSubnetEnv: async (text) => {
      if (subnetFile !== undefined) await written.write(subnetFile, text);
    },
    writeConflist: async () => {
      // First: the conflist tells the runtime that it can make pods.
      await plugins?.ensure();
      if (!config.conflist) return;
      await written.write(join(config.cniConfDir, '10-podwire.conflist'), conflist);
    },
  };
}

/** Where nodes find their subnet in etcd themselves, it is remembered in any case. */
export function subnetFileOf(config: NodeConfig): string | undefined {
  if (config.subnetFile !== undefined) return config.subnetFile;
  return config.etcd === undefined ? undefined : join(config.runDir, 'subnet.env');
}

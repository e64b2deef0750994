/**
 * Every plugin by the name a runtime calls it. Each is loaded when it is called: a process that
 * lives for milliseconds must not pay for the others.
 */
import type { CniPlugin } from '#pkg/cni/plugin.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import type { CniSystem } from './cni-system.ts';
import type { PluginName } from './plugin-names.ts';

/** Loads one plugin. */
export async function pluginOf(name: PluginName, system: CniSystem): Promise<CniPlugin> {
  switch (name) {
    case 'podwire':
      return (await import('./podwire.ts')).podwirePlugin(system);
    case 'bridge':
      return (await import('./main/bridge.ts')).bridgePlugin(system);
    case 'loopback':
      return (await import('./main/loopback.ts')).loopbackPlugin(system);
    case 'static':
      return (await import('./ipam/static.ts')).staticPlugin;
    case 'ipvlan':
      return (await import('./main/ipvlan.ts')).ipvlanPlugin(system);
    case 'macvlan':
      return (await import('./main/macvlan.ts')).macvlanPlugin(system);
    case 'ptp':
      return (await import('./main/ptp.ts')).ptpPlugin(system);
    case 'bandwidth':
      return (await import('./meta/bandwidth.ts')).bandwidthPlugin(system);
    case 'portmap':
      return (await import('./meta/portmap.ts')).portmapPlugin(system);
    case 'firewall':
      return (await import('./meta/firewall.ts')).firewallPlugin(system);
    case 'tuning':
      return (await import('./meta/tuning.ts')).tuningPlugin(system);
    case 'host-local':
      return (await import('./ipam/host-local.ts')).hostLocalPlugin(system.sys);
  }
}

/** Plugins that others delegate to; those of them that run in this process. */
const delegateLoaders: Readonly<Record<string, (sys: Sys) => Promise<CniPlugin>>> = {
  'host-local': async (sys) => (await import('./ipam/host-local.ts')).hostLocalPlugin(sys),
  static: async () => (await import('./ipam/static.ts')).staticPlugin,
};

/** What a plugin may delegate to without its configuration naming it. */
const unnamed: Readonly<Partial<Record<PluginName, readonly string[]>>> = {
  podwire: ['host-local'],
};

/**
 * Loads the delegates a plugin can have: all of them, or those that one call can need. A type that
 * the text of its configuration does not contain is not delegated to.
 */
export async function delegatesOf(
  name: PluginName,
  sys: Sys,
  configText?: string,
): Promise<ReadonlyMap<string, CniPlugin>> {
  const delegates = new Map<string, CniPlugin>();
  for (const type in delegateLoaders) {
    const needed =
      configText === undefined ||
      unnamed[name]?.includes(type) === true ||
      configText.includes(`"${type}"`);
    const load = delegateLoaders[type];
    if (needed && load !== undefined) delegates.set(type, await load(sys));
  }
  return delegates;
}

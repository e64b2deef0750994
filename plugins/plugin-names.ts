/** What the plugins are called. */

/** The names, for errors and for what puts the files in place. */
export const pluginNames = [
  'podwire',
  'bridge',
  'loopback',
  'host-local',
  'bandwidth',
  'macvlan',
  'ipvlan',
  'ptp',
  'static',
  'portmap',
  'firewall',
  'tuning',
] as const;

export type PluginName = (typeof pluginNames)[number];

/** Whether the executable has a plugin of this name. */
export function isPluginName(name: string): name is PluginName {
  return (pluginNames as readonly string[]).includes(name);
}

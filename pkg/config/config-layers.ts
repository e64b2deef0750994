/** Settings from several places, of which later ones win, and how messages name what is wrong. */

/** What one place says. */
export interface Layer {
  /** "node.yaml", "the command line". */
  readonly source: string;
  readonly keys: Readonly<Record<string, unknown>>;
  /** How that place spells a setting, where it does so otherwise: "Backend.VNI" for "vni". */
  readonly nameOf?: (path: string) => string;
}

/** A setting that cannot be used, and why. */
export interface WrongSetting {
  /** "wireguard.mode"; empty for all of it. */
  readonly path: string;
  readonly reason: string;
  /** The reason names the setting itself. */
  readonly isNamed?: boolean;
}

/** The keys of all layers; mappings are merged key by key, one level deep. */
export function mergedKeys(
  ...layers: readonly Readonly<Record<string, unknown>>[]
): Record<string, unknown> {
  const merged: Record<string, unknown> = {};
  for (const [key, value] of layers.flatMap((layer) => Object.entries(layer))) {
    const old = merged[key];
    merged[key] = isMapping(old) && isMapping(value) ? { ...old, ...value } : value;
  }
  return merged;
}

/** "Cannot use node.yaml: vni: …; mtu: …; nor the command line: --net-conf: …". */
export function describeWrong(layers: readonly Layer[], wrong: readonly WrongSetting[]): string {
  const bySource = new Map<string, string[]>();
  for (const { isNamed = false, path, reason } of wrong) {
    // Nobody gave it: that it is not there is the matter of the first.
    const layer = layers.findLast(({ keys }) => gives(keys, path)) ?? layers[0];
    const name = layer?.nameOf?.(path) ?? path;
    const sentences = bySource.getOrInsertComputed(layer?.source ?? '', () => []);
    sentences.push(name === '' || isNamed ? reason : `${name}: ${reason}`);
  }
  const parts = [...bySource].map(([source, reasons]) => `${source}: ${reasons.join('; ')}`);
  return `Cannot use ${parts.join('; nor ')}`;
}

function gives(keys: Readonly<Record<string, unknown>>, path: string): boolean {
  const [section = '', key = ''] = path.split('.');
  if (!Object.hasOwn(keys, section)) return false;
  const value = keys[section];
  return key === '' || !isMapping(value) || Object.hasOwn(value, key);
}

/** Not null, no array. */
export function isMapping(data: unknown): data is Readonly<Record<string, unknown>> {
  return typeof data === 'object' && data !== null && !Array.isArray(data);
}

/** What the kernel says of two devices, side by side: equal settings carry packets equally. */
import type { ScratchNetns } from '#pkg/netns/scratch.ts';

/** What tells two devices of one machine apart, and counts nothing. */
const identity = new Set([
  'ifindex',
  'ifname',
  'ifalias',
  'address',
  'permaddr',
  'linkinfo.info_data.id',
  'linkinfo.info_data.port',
]);

/** "mtu: 1450, not 1500", a line for each setting of `name` that is another than that of `twin`. */
export async function deviceDifferences(
  netns: ScratchNetns,
  name: string,
  twin: string,
): Promise<readonly string[]> {
  const [ours, theirs] = await Promise.all([name, twin].map((link) => settingsOf(netns, link)));
  const keys = new Set([...(ours?.keys() ?? []), ...(theirs?.keys() ?? [])]);
  return [...keys].flatMap((key) => {
    const [value = 'none', other = 'none'] = [ours?.get(key), theirs?.get(key)];
    return value === other ? [] : [`${key}: ${value}, not ${other}`];
  });
}

/** The last part of `ip -d -j link show`, as paths and texts. */
async function settingsOf(netns: ScratchNetns, link: string): Promise<ReadonlyMap<string, string>> {
  const [shown] = JSON.parse(await netns.ip(`-d -j link show ${link}`)) as readonly unknown[];
  const settings = new Map<string, string>();
  collect(shown, '', settings);
  return settings;
}

function collect(value: unknown, path: string, settings: Map<string, string>): void {
  if (identity.has(path)) return;
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    settings.set(path, JSON.stringify(value));
    return;
  }
  for (const [key, inner] of Object.entries(value)) {
    collect(inner, path === '' ? key : `${path}.${key}`, settings);
  }
}

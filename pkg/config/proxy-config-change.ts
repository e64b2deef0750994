/** What a new configuration changes, and whether a running proxy can take it over. Pure. */
import { isDeepStrictEqual } from 'node:util';
import type { CompleteProxyConfig } from './proxy-config-defaults.ts';

export interface ConfigChange {
  /** "iptables.masqueradeAll"; sorted. */
  readonly changed: readonly string[];
  /** Those of them that a running proxy cannot take over. */
  readonly needRestart: readonly string[];
}

/** Paths that decide what a running proxy is built of: who it is, whom it asks, what it writes. */
const fixed = [
  'bindAddressHardFail',
  'clientConnection',
  'featureGates',
  'hostnameOverride',
  'logging.format',
  'mode',
];

/** Paths of a mode that are fixed once it runs. Of modes that do not run nothing is. */
const fixedOfMode: Readonly<Record<string, readonly string[]>> = {
  iptables: ['iptables.layout'],
  ipvs: ['ipvs'],
  nftables: ['nftables.counters', 'nftables.masqueradeBit', 'nftables.traffic'],
};

/** What differs between the configuration a proxy runs with and a new one. */
export function configChange(old: CompleteProxyConfig, now: CompleteProxyConfig): ConfigChange {
  const changed = differences(old, now, '').toSorted();
  const isFixed = (path: string): boolean =>
    [...fixed, ...(fixedOfMode[old.mode] ?? [])].some(
      (start) => path === start || path.startsWith(`${start}.`),
    );
  return { changed, needRestart: changed.filter(isFixed) };
}

function differences(old: unknown, now: unknown, path: string): string[] {
  if (isDeepStrictEqual(old, now)) return [];
  if (!isSection(old) || !isSection(now)) return [path];
  const keys = new Set([...Object.keys(old), ...Object.keys(now)]);
  return [...keys].flatMap((key) =>
    differences(old[key], now[key], path === '' ? key : `${path}.${key}`),
  );
}

function isSection(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

import { describe, expect, it } from 'vitest';
import { planInstall, planRemoval, type PluginDirectory, type Present } from './plan.ts';

const names = ['podwire', 'bridge', 'portmap'];

function directory(
  files: Readonly<Record<string, Present>>,
  more: { readonly kept?: readonly string[]; readonly leftovers?: readonly string[] } = {},
): PluginDirectory {
  const { kept = [], leftovers = [] } = more;
  return { files: new Map(Object.entries(files)), kept: new Set(kept), leftovers };
}

const put = (name: string, keepForeign = false): object => ({ op: 'put', name, keepForeign });
const current = { 'podwire-cni': 'current', podwire: 'current' } as const;

describe('planInstall()', () => {
  it.each<
    [string, PluginDirectory, boolean, { steps: readonly object[]; left: readonly string[] }]
  >([
    [
      'puts the executable first, then every name',
      directory({}),
      false,
      { steps: [put('podwire-cni'), put('podwire'), put('bridge'), put('portmap')], left: [] },
    ],
    [
      'puts what is old, and leaves what is current',
      directory({ ...current, bridge: 'outdated', portmap: 'current' }),
      false,
      { steps: [put('bridge')], left: [] },
    ],
    [
      'leaves what is somebody else’s',
      directory({ ...current, bridge: 'foreign', portmap: 'current' }),
      false,
      { steps: [], left: ['bridge'] },
    ],
    [
      'replaces it when asked to, and keeps it',
      directory({ ...current, bridge: 'foreign', portmap: 'foreign' }),
      true,
      { steps: [put('bridge', true), put('portmap', true)], left: [] },
    ],
    [
      'clears what a killed installer left',
      directory({ ...current, bridge: 'current', portmap: 'current' }, { leftovers: ['.x'] }),
      false,
      { steps: [{ op: 'clear', file: '.x' }], left: [] },
    ],
  ])('%s', (_, have, replaceForeign, plan) => {
    expect(planInstall(have, { names, replaceForeign })).toEqual(plan);
  });
});

describe('planRemoval()', () => {
  it.each<[string, PluginDirectory, readonly object[], readonly string[]]>([
    [
      'removes ours, the executable last, and puts back what was replaced',
      directory({ ...current, bridge: 'current', portmap: 'outdated' }, { kept: ['bridge'] }),
      [
        { op: 'remove', name: 'podwire' },
        { op: 'restore', name: 'bridge' },
        { op: 'remove', name: 'portmap' },
        { op: 'remove', name: 'podwire-cni' },
      ],
      [],
    ],
    [
      'leaves what is somebody else’s, and forgets what that took the place of',
      directory({ bridge: 'foreign', portmap: 'foreign' }, { kept: ['bridge'] }),
      [{ op: 'clear', file: '.bridge.podwire-replaced' }],
      ['bridge', 'portmap'],
    ],
    ['finds nothing to do in an empty directory', directory({}), [], []],
  ])('%s', (_, have, steps, left) => {
    expect(planRemoval(have, { names })).toEqual({ steps, left });
  });
});

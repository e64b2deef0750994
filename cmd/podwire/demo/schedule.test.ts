import { describe, expect, it } from 'vitest';
import type { NodeRecord } from '#pkg/kube/types.ts';
import type { PodRecord } from './pod-record.ts';
import { schedule } from './schedule.ts';

function node(name: string, deleting = false): NodeRecord {
  return {
    namespace: '',
    name,
    uid: name,
    resourceVersion: '1',
    createdAt: '',
    annotations: {},
    labels: { 'kubernetes.io/hostname': name },
    podCIDRs: [],
    internalIPs: [],
    taintKeys: [],
    deleting,
  };
}

function pod(name: string, more: Partial<PodRecord> = {}): [string, PodRecord] {
  const meta = { namespace: 'default', name, uid: name, resourceVersion: '1' };
  const rest = {
    nodeName: '',
    nodeSelector: {},
    annotations: {},
    deleting: false,
    phase: 'Pending',
  };
  return [`default/${name}`, { ...meta, ...rest, containers: [], ...more }];
}

function placed(pods: readonly [string, PodRecord][], nodes: readonly NodeRecord[]): object {
  return Object.fromEntries(schedule(new Map(pods), nodes));
}

describe('schedule()', () => {
  it('gives each pod the node with the fewest', () => {
    const pods = [pod('a', { nodeName: 'n1' }), pod('b'), pod('c'), pod('d')];
    expect(placed(pods, [node('n1'), node('n2')])).toEqual({
      'default/b': 'n2',
      'default/c': 'n1',
      'default/d': 'n2',
    });
  });

  it('keeps to the node selector, and waits where none fits', () => {
    const on = (name: string): Partial<PodRecord> => ({
      nodeSelector: { 'kubernetes.io/hostname': name },
    });
    const pods = [pod('a', on('n2')), pod('b', on('n9'))];
    expect(placed(pods, [node('n1'), node('n2')])).toEqual({ 'default/a': 'n2' });
  });

  it('leaves alone what is placed or going, and nodes that are going', () => {
    const pods = [pod('a', { nodeName: 'n1' }), pod('b', { deleting: true })];
    expect(placed(pods, [node('n1')])).toEqual({});
    expect(placed([pod('c')], [node('n1', true)])).toEqual({});
  });
});

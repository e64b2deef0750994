/** A Node that says nothing of itself, and the options of a plain vxlan network, for tests. */
import type { NodeRecord } from '#pkg/kube/types.ts';
import { defaultAnnotationPrefix } from '#pkg/overlay/annotations.ts';
import type { PodNetworkOptions } from '#pkg/pod-network/desired.ts';

export function nodeRecord(name: string, fields: Partial<NodeRecord> = {}): NodeRecord {
  return {
    namespace: '',
    name,
    uid: `uid-${name}`,
    resourceVersion: '1',
    createdAt: '2026-01-01T00:00:00Z',
    annotations: {},
    labels: {},
    podCIDRs: [],
    internalIPs: [],
    taintKeys: [],
    deleting: false,
    ...fields,
  };
}

export function vxlanOptions(nodeName: string): PodNetworkOptions {
  return {
    nodeName,
    backend: 'vxlan',
    vni: 1,
    port: 8472,
    directRouting: true,
    link: undefined,
    mtuBytes: undefined,
    masquerade: true,
    nonMasqueradeCIDRs: [],
    annotationPrefix: defaultAnnotationPrefix,
  };
}

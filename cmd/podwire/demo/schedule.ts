/** Gives pods a node, for a cluster without a scheduler: the node with the fewest that fits. */
import type { NodeRecord } from '#pkg/kube/types.ts';
import type { PodRecord } from './pod-record.ts';

/** Node name by pod key, for the pods that have none and fit somewhere. */
export function schedule(
  pods: ReadonlyMap<string, PodRecord>,
  nodes: readonly NodeRecord[],
): Map<string, string> {
  const load = new Map(nodes.map((node) => [node.name, 0]));
  for (const { nodeName } of pods.values()) {
    const count = load.get(nodeName);
    if (count !== undefined) load.set(nodeName, count + 1);
  }
  const bindings = new Map<string, string>();
  for (const [key, pod] of [...pods].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
    if (pod.nodeName !== '' || pod.deleting) continue;
    const fitting = nodes.filter((node) => fits(pod, node)).map((node) => node.name);
    const best = fitting.toSorted(
      (a, b) => (load.get(a) ?? 0) - (load.get(b) ?? 0) || (a < b ? -1 : 1),
    )[0];
    if (best === undefined) continue;
    bindings.set(key, best);
    load.set(best, (load.get(best) ?? 0) + 1);
  }
  return bindings;
}

function fits(pod: PodRecord, node: NodeRecord): boolean {
  if (node.deleting) return false;
  return Object.entries(pod.nodeSelector).every(([key, value]) => node.labels[key] === value);
}

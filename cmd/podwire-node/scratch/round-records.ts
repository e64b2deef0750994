/** The API server of rounds that a test runs itself: a map of Node objects, and who writes to it. */
import type { NodeRecord } from '#pkg/kube/types.ts';
import type { PeerChange } from '#pkg/pod-network/peer-index.ts';
import type { OwnNode } from '#cmd/podwire-node/own-node.ts';

/** What changed since the last call, as a store tells it. */
export function drainOf(records: ReadonlyMap<string, NodeRecord>): () => readonly PeerChange[] {
  let seen: ReadonlyMap<string, NodeRecord> = new Map();
  return () => {
    const before = seen;
    seen = new Map(records);
    const names = new Set([...before.keys(), ...seen.keys()]);
    return [...names].flatMap((name) => {
      const change = { old: before.get(name), new: seen.get(name) };
      return change.old === change.new ? [] : [change];
    });
  };
}

/** Writes annotations into the map; there is no controller to be told of a condition. */
export function ownNodeIn(records: Map<string, NodeRecord>, name: string): OwnNode {
  return {
    annotate: async (patch) => {
      const record = records.get(name);
      if (record === undefined) return;
      const annotations = { ...record.annotations };
      for (const [key, value] of Object.entries(patch)) {
        if (value === null) delete annotations[key];
        else annotations[key] = value;
      }
      records.set(name, { ...record, annotations });
    },
    reportNetworkUp: async () => undefined,
  };
}

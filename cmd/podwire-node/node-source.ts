/** Where the daemon learns of the cluster's nodes, and tells them of its own. */
import type { NodeConfig } from '#pkg/config/node-config.ts';
import type { Address } from '#pkg/ip/address.ts';
import type { Store } from '#pkg/kube/store.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import type { OwnNode } from './own-node.ts';

/** Servers restart, connections are cut: so long without a word is not worth one. */
export const toleratedMs = 60_000;

export interface NodeSource extends AsyncDisposable {
  /** Every node, our own under the name the daemon has. */
  readonly nodes: Store<NodeRecord>;
  readonly ownNode: OwnNode;
  /** The daemon's, with what the source says of the whole network. */
  readonly config: NodeConfig;
  /** Why what is known may not be how things are: what has not been heard of for long, in words. */
  staleness(): readonly string[];
  /** This host has lost an address: connections from it are dead, and others must not use it. */
  addressGone(address: Address): void;
  /** Keeps the store in step until the signal aborts. */
  run(signal: AbortSignal): Promise<void>;
}

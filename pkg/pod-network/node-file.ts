/** The facts `podwire-cni` needs of its node, so that making a pod never waits for the API server. */
import { formatPrefix, type Prefix } from '#pkg/ip/prefix.ts';

export interface NodeFileFacts {
  readonly podCIDRs: readonly Prefix[];
  /** MTU of pod interfaces. */
  readonly mtuBytes: number;
  readonly backend: string;
}

/** The text of node.json: equal facts give equal bytes. */
export function nodeFileText(facts: NodeFileFacts): string {
  const { mtuBytes, backend } = facts;
  const podCIDRs = facts.podCIDRs.map(formatPrefix);
  return `${JSON.stringify({ podCIDRs, mtuBytes, backend })}\n`;
}

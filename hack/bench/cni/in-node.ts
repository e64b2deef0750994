/** Work in the network namespace of a contestant's node. */
import { withNetns } from '#pkg/netns/netns.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import type { Contestant } from './contestant.ts';

export type InNode = <T>(
  contestant: Contestant,
  work: () => T extends PromiseLike<unknown> ? never : T,
) => T;

/** A thread that cannot leave the namespace ends the process. */
export function inNodeOf(sys: Sys): InNode {
  return (contestant, work) =>
    withNetns(sys, contestant.node.path, work, (error) => {
      console.error(error.message);
      process.exit(1);
    });
}

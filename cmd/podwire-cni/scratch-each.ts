/** A scratch node for each test of a file. */
import { afterEach, beforeAll, beforeEach } from 'vitest';
import { buildExecutable, createScratchNode, type ScratchNode } from './scratch-node.ts';

/**
 * Makes a node before each test and removes it after, also when the test fails.
 *
 * @param arrange keeps the node where the tests find it, and puts on it what they all need
 */
export function eachOnScratchNode(arrange: (node: ScratchNode) => Promise<void> | void): void {
  let node: ScratchNode | undefined;
  beforeAll(buildExecutable);
  beforeEach(async () => {
    node = await createScratchNode();
    await arrange(node);
  });
  afterEach(async () => {
    await node?.[Symbol.asyncDispose]();
    node = undefined;
  });
}

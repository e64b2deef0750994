/** Whether a plugin brings links up in an order that costs nobody a wait. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import { eventually } from './scratch-node.ts';

/**
 * The flags of every state in which `work` shows a veth of the node administratively up, as
 * "BROADCAST,UP,LOWER_UP". One without LOWER_UP waits for a carrier: the kernel stops its queues, with a
 * grace period in which nobody can change a link.
 */
export async function statesOfLinksUp(
  node: ScratchNetns,
  work: () => Promise<void>,
): Promise<readonly string[]> {
  const monitor = spawn('nsenter', [`--net=${node.path}`, 'ip', '-o', 'monitor', 'link'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(monitor, 'exit');
  try {
    let text = '';
    monitor.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()));
    const hears = (name: string): Promise<void> =>
      eventually(async () => {
        await node.batch([`link add ${name} type bridge`, `link del ${name}`]);
        return text.includes(`: ${name}:`);
      });
    await hears('begin');
    await work();
    await hears('end');
    return text
      .split('\n')
      .filter((line) => line.includes(': veth'))
      .map((line) => /<(.*?)>/.exec(line)?.[1] ?? '')
      .filter((flags) => flags.split(',').includes('UP'));
  } finally {
    monitor.kill();
    await ended;
  }
}

/** Threads of this process that do the plugin's work, for what a rate could be at best. */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { addressPlus, formatAddress, parseAddress } from '#pkg/ip/address.ts';
import type { Contestant } from './contestant.ts';
import type { FloorRound, FloorThreadData } from './floor-thread.ts';
import type { Caller } from './rates.ts';

/** Starts them; they end with the process. */
export async function threadCaller(
  { name, node, plugins: [plugin] }: Contestant,
  does: FloorThreadData['does'],
  threads: number,
): Promise<Caller> {
  if (plugin === undefined) throw new Error('unreachable');
  const next = new SharedArrayBuffer(4);
  const workerData: FloorThreadData = { node: node.path, plugin, does, next };
  const workers: Worker[] = [];
  for (let i = 0; i < threads; i++) {
    const worker = new Worker(new URL('./floor-thread.ts', import.meta.url), { workerData });
    await once(worker, 'message');
    worker.unref();
    workers.push(worker);
  }
  return {
    name,
    async run(command, pods) {
      new Int32Array(next)[0] = 0;
      const round: FloorRound = {
        command,
        pods: pods.map((pod) => ({
          ...pod,
          ifName: pod.ifName ?? 'eth0',
          address: addressOf(pod),
        })),
      };
      const done = workers.map((worker) => once(worker, 'message'));
      for (const worker of workers) worker.postMessage(round);
      await Promise.all(done);
    },
  };
}

const firstAddress = parseAddress('10.244.1.0');

function addressOf({ id }: { readonly id: string }): string {
  return formatAddress(addressPlus(firstAddress, Number(/\d+$/u.exec(id)?.[0])));
}

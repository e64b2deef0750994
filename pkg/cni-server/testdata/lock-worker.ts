import { parentPort, workerData } from 'node:worker_threads';
import { openWorkerState } from '#pkg/cni-server/worker-state.ts';

const { buffer, worker, containerIds } = workerData as {
  readonly buffer: SharedArrayBuffer;
  readonly worker: number;
  readonly containerIds: readonly string[];
};
const state = openWorkerState(buffer);
for (const id of containerIds) {
  using _ = state.lockContainer(worker, id);
  parentPort?.postMessage(id);
}

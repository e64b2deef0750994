/** `node host-mounts.ts MOUNT-NAMESPACE FILE`: what a thread sees before it enters, after, and the main thread. */
import { readFileSync } from 'node:fs';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { enterHostMounts } from '#pkg/cni-server/host-mounts.ts';
import { openListenSys } from '#pkg/sys/listen-sys.ts';
import { openSys } from '#pkg/sys/open-sys.ts';

if (isMainThread) {
  const [namespace = '', file = ''] = process.argv.slice(2);
  const worker = new Worker(new URL(import.meta.url), { workerData: { namespace, file } });
  worker.once('message', (seen: readonly string[]) => {
    process.stdout.write(JSON.stringify([...seen, readFileSync(file, 'utf8')]));
  });
} else {
  const { namespace, file } = workerData as { readonly namespace: string; readonly file: string };
  const before = readFileSync(file, 'utf8');
  enterHostMounts(await openSys(), openListenSys(), namespace);
  parentPort?.postMessage([before, readFileSync(file, 'utf8')]);
}

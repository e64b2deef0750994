/**
 * A thread of the daemon that does what CNI callers ask (pkg/cni-server). It never returns to an
 * event loop for long: it waits in accept(2), and works in its own system calls.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { programRunner } from '#cmd/podwire-cni/run-program.ts';
import { isErrno, messageOf } from '#pkg/errors/agent-error.ts';
import { answerCni, type CniAnswer } from '#pkg/cni/protocol.ts';
import { enterHostMounts } from '#pkg/cni-server/host-mounts.ts';
import { serveCni } from '#pkg/cni-server/serve.ts';
import type { LauncherRequest } from '#pkg/cni-server/wire.ts';
import { openWorkerState } from '#pkg/cni-server/worker-state.ts';
import { isOwnNetns } from '#pkg/netns/netns.ts';
import { openListenSys, type ListenSys } from '#pkg/sys/listen-sys.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import type { CniPlugin } from '#pkg/cni/plugin.ts';
import { isPluginName, type PluginName } from '#plugins/plugin-names.ts';
import { delegatesOf, pluginOf } from '#plugins/registry.ts';
import type { CniWorkerData, CniWorkerMessage } from './cni-worker-data.ts';

async function main({ listenFd, pool, worker, keep, state }: CniWorkerData): Promise<void> {
  const sys = await openSys();
  const listenSys = openListenSys();
  tryEnterHostMounts(sys, listenSys);
  const answer = answerer(sys);
  await serveCni({
    sys,
    listenSys,
    listenFd,
    pool,
    worker,
    state: openWorkerState(state),
    knows: (name) => isPluginName(baseName(name)),
    answer,
    onBusy: () => tell({ kind: 'busy' }),
    onIdle: () => keep,
    onProblem: (text) => tell({ kind: 'problem', text }),
  });
}

/** Where that is not allowed, callers that see other files than we are told to do the work themselves. */
function tryEnterHostMounts(sys: Sys, listenSys: ListenSys): void {
  try {
    enterHostMounts(sys, listenSys);
  } catch (error) {
    if (!isErrno(error, 'EACCES') && !isErrno(error, 'EPERM')) throw error;
  }
}

/** Does what is asked, with plugins that are made once: a thread has one caller at a time. */
function answerer(sys: Sys): (request: LauncherRequest) => Promise<CniAnswer> {
  let said = '';
  const runProgram = programRunner((text) => (said += text));
  const plugins = new Map<string, CniPlugin>();

  async function load(name: PluginName): Promise<CniPlugin> {
    const delegates = await delegatesOf(name, sys);
    const plugin = await pluginOf(name, { sys, runProgram, delegates, die });
    plugins.set(name, plugin);
    return plugin;
  }

  return async (request) => {
    const name = baseName(request.name);
    if (!isPluginName(name)) throw new Error(`Cannot act as ${name}: it was to be declined`);
    said = '';
    const { exitCode, stdout, stderr } = answerCni(plugins.get(name) ?? (await load(name)), {
      environment: request.environment,
      readStdin: () => request.stdin,
      isOwnNetns,
    });
    return { exitCode, stdout, stderr: said + stderr };
  };
}

function baseName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

/** This thread, and no other, is in a pod's namespace and cannot leave: nothing of it may go on. */
function die(error: Error): never {
  tell({ kind: 'problem', text: messageOf(error) });
  // In a thread that ends the thread, here and now.
  process.exit(1);
}

function tell(message: CniWorkerMessage): void {
  parentPort?.postMessage(message);
}

// A rejection is the "error" event of this thread.
void main(workerData as CniWorkerData);

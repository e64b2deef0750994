/** The plugin's calls without a process of their own: what is left is what the kernel does for them. */
import { answerCni } from '#pkg/cni/protocol.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { delegatesOf, pluginOf } from '#plugins/registry.ts';
import { programOf, type Plugin, type Pod } from './contestant.ts';
import type { Sample } from './table.ts';

export interface WarmPlugin {
  /**
   * Does one call in this thread, which has to be on the node. Wall time is that of its calls to
   * the kernel for links, addresses, routes, sockets and namespaces, processor time that of it all.
   */
  run(command: 'ADD' | 'DEL', pod: Pod): Sample;
}

export async function openWarmPlugin(sys: Sys, { config, file }: Plugin): Promise<WarmPlugin> {
  let kernelMs = 0;
  const timed = Object.fromEntries(
    Object.entries(sys).map(([name, call]: [string, (...args: unknown[]) => unknown]) => [
      name,
      (...args: unknown[]): unknown => {
        const startMs = performance.now();
        try {
          return call(...args);
        } finally {
          kernelMs += performance.now() - startMs;
        }
      },
    ]),
  ) as unknown as Sys;
  const fail = (): never => {
    throw new Error('Cannot go on: a thread that is in the wrong namespace, or another program');
  };
  const delegates = await delegatesOf('bridge', timed);
  const system = { sys: timed, runProgram: fail, delegates, die: fail };
  const plugin = await pluginOf('bridge', system);
  return {
    run(command, pod) {
      const { env, stdin } = programOf({ config, file }, { command, pod });
      kernelMs = 0;
      const before = process.cpuUsage();
      const { exitCode, stdout } = answerCni(plugin, {
        environment: env,
        readStdin: () => stdin,
        isOwnNetns: () => false,
      });
      const { user, system: inKernel } = process.cpuUsage(before);
      if (exitCode !== 0) throw new Error(`${command} failed: ${stdout}`);
      return { wallMs: kernelMs, cpuMs: (user + inKernel) / 1000 };
    },
  };
}

/** What is compared: a chain of plugins of one make, on a node of its own. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import type { Program, Run, Spawner } from './spawn.ts';

/** A plugin's file and its part of the conflist. */
export interface Plugin {
  readonly file: string;
  readonly config: Readonly<Record<string, unknown>>;
}

export interface Contestant {
  readonly name: string;
  readonly node: ScratchNetns;
  readonly plugins: readonly Plugin[];
  /** Processor time so far of a daemon that does the work for the plugin, in milliseconds. */
  readonly daemonCpuMs?: () => number;
}

/** The sum over all plugins of a chain. */
export interface Cost {
  readonly wallMs: number;
  readonly cpuMs: number;
}

/** One pod's network, as a runtime names it. */
export interface Pod {
  readonly id: string;
  readonly netns: string;
  /** "eth0" unless the namespace has several. */
  readonly ifName?: string;
}

/** Runs a chain as libcni does: ADD forwards with the result of the one before, DEL backwards. */
export function runChain(
  spawner: Spawner,
  contestant: Contestant,
  command: 'ADD' | 'DEL',
  pod: Pod,
): Cost {
  const plugins = command === 'ADD' ? contestant.plugins : contestant.plugins.toReversed();
  const daemonBefore = contestant.daemonCpuMs?.() ?? 0;
  let prevResult: object | undefined;
  let wallMs = 0;
  let cpuMs = 0;
  for (const plugin of plugins) {
    const run = spawner.run(programOf(plugin, { command, pod, prevResult }));
    checkRun(contestant, command, run);
    wallMs += run.wallMs;
    cpuMs += run.cpuMs;
    if (command === 'ADD') prevResult = JSON.parse(run.stdout) as object;
  }
  return { wallMs, cpuMs: cpuMs + (contestant.daemonCpuMs?.() ?? 0) - daemonBefore };
}

export function programOf(
  { file, config }: Plugin,
  call: { readonly command: string; readonly pod: Pod; readonly prevResult?: object | undefined },
): Program {
  const { command, pod, prevResult } = call;
  return {
    file,
    env: {
      PATH: process.env['PATH'] ?? '',
      CNI_COMMAND: command,
      CNI_CONTAINERID: pod.id,
      CNI_NETNS: pod.netns,
      CNI_IFNAME: pod.ifName ?? 'eth0',
      CNI_PATH: file.slice(0, file.lastIndexOf('/')),
      CNI_ARGS: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME=pod',
    },
    stdin: JSON.stringify({ ...config, ...(prevResult === undefined ? {} : { prevResult }) }),
  };
}

export function checkRun(contestant: Contestant, command: string, run: Run): void {
  if (run.exitCode === 0) return;
  throw new Error(`${contestant.name}: ${command} failed (${run.exitCode}): ${run.stdout}`);
}

/** A bridge with addresses of host-local: the same words for every make. */
export function bridgeConfig(
  dir: string,
  more: Readonly<Record<string, unknown>> = {},
): Plugin['config'] {
  const dataDir = join(dir, 'networks');
  mkdirSync(dataDir, { recursive: true });
  return {
    cniVersion: '1.0.0',
    name: 'bench',
    type: 'bridge',
    bridge: 'cni0',
    isDefaultGateway: true,
    hairpinMode: true,
    mtu: 1450,
    ipam: { type: 'host-local', dataDir, ranges: [[{ subnet: '10.244.0.0/20' }]] },
    ...more,
  };
}

/** The demo's control plane: the embedded API server, and the kubelet of all nodes. */
import { existsSync } from 'node:fs';
import type { Clock } from '#pkg/clock/clock.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { bundle, machineKubeconfig, nodeKubeconfig, type Programs } from './layout.ts';
import { startProgram, type Program } from './processes.ts';
import type { RunFolder } from './run-folder.ts';
import { waitFor } from './wait.ts';

export interface ControlPlaneOptions {
  readonly run: RunFolder;
  readonly programs: Programs;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/** Starts the API server; resolves when both kubeconfigs are there, which is when it answers. */
export async function startApi({
  run,
  programs,
  clock,
  signal,
}: ControlPlaneOptions): Promise<Program> {
  const [file, ...args] = bundle(programs, 'podwire', 'demo-api', '--run', run.id);
  const program = startProgram(run, { name: 'api', file, args });
  await waitFor(
    `API server, see ${program.logPath}`,
    { clock, withinMs: 60_000, signal },
    async () => {
      if (program.hasEnded())
        throw new AgentError(
          'ProgramFailed',
          `Cannot start the API server: ${await program.ended}`,
        );
      return (existsSync(machineKubeconfig(run)) && existsSync(nodeKubeconfig(run))) || undefined;
    },
  );
  return program;
}

export function startKubelet({ run, programs }: ControlPlaneOptions): Program {
  const [file, ...args] = bundle(programs, 'podwire', 'demo-kubelet', '--run', run.id);
  return startProgram(run, { name: 'kubelet', file, args });
}

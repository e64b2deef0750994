/** `podwire demo`: builds a cluster on this machine, shows that it works, and removes it. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '#pkg/clock/clock.ts';
import { AgentError, messageOf } from '#pkg/errors/agent-error.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { createCluster, type Cluster } from './cluster.ts';
import { waitForPods } from './facts.ts';
import { keptText } from './kept-text.ts';
import type { Programs } from './layout.ts';
import { applyManifests } from './manifests.ts';
import { phaseHolds, phases, runPhase, type PhaseResult } from './phase.ts';
import type { Program } from './processes.ts';
import { removeRuns } from './remove.ts';
import { findRuns, keepRun } from './run-folder.ts';
import { resultTable } from './table.ts';

export interface DemoOptions {
  readonly programs: Programs;
  /** Folder of the manifests to apply. */
  readonly manifests: string;
  readonly clock: Clock;
  readonly ownerPid: number;
  /** Leave the cluster running when it works. */
  readonly keep: boolean;
  /** Progress and reasons, for people. */
  readonly say: (line: string) => void;
  /** Results. */
  readonly print: (text: string) => void;
}

/** @returns 0 when everything holds, 1 when not or when stopped, 2 when it cannot start. */
export async function runDemo(options: DemoOptions, signal: AbortSignal): Promise<0 | 1 | 2> {
  const { say, keep } = options;
  if (keep && findRuns().some((run) => run.status === 'kept')) {
    say('podwire demo: one is running already; remove it with: npm run demo -- --down');
    return 2;
  }
  for (const { id } of await removeRuns(['abandoned'])) {
    say(`removed what was left of run ${id}, which did not end by itself`);
  }
  const startMs = options.clock.now();
  const stage = (what: string): void => {
    const seconds = ((options.clock.now() - startMs) / 1000).toFixed(1);
    say(`${seconds.padStart(6)} s  ${what}`);
  };
  try {
    return await buildAndProbe(options, stage, signal);
  } catch (error) {
    if (!signal.aborted) throw error;
    say('podwire demo: stopped; everything it made is removed');
    return 1;
  }
}

async function buildAndProbe(
  options: DemoOptions,
  stage: (what: string) => void,
  signal: AbortSignal,
): Promise<0 | 1> {
  const cluster = await createCluster(
    {
      programs: options.programs,
      clock: options.clock,
      ownerPid: options.ownerPid,
      log: silentLogger,
      backend: phases[0].choice,
      onStage: stage,
    },
    signal,
  );
  let kept = false;
  try {
    const results = await probeAll(cluster, options, stage, signal);
    options.print(resultTable(results));
    const holds = results.every(phaseHolds);
    if (!holds) for (const program of cluster.programs()) showLog(program, options.say);
    kept = holds && options.keep;
    if (kept) {
      keepRun(cluster.run);
      await cluster.leave();
      options.print(keptText(cluster));
    }
    return holds ? 0 : 1;
  } catch (error) {
    if (!signal.aborted) explain(error, cluster, options.say);
    if (signal.aborted) throw error;
    return 1;
  } finally {
    if (!kept) {
      await cluster[Symbol.asyncDispose]();
      stage('everything removed');
    }
  }
}

async function probeAll(
  cluster: Cluster,
  options: DemoOptions,
  stage: (what: string) => void,
  signal: AbortSignal,
): Promise<PhaseResult[]> {
  for (const file of ['nodes.yaml', 'pods.yaml', 'services.yaml']) {
    await applyManifests(cluster.client, join(options.manifests, file), signal);
  }
  stage(`applied ${options.manifests}`);
  await whileRunning(cluster, signal, (inner) => waitForPods(cluster.client, inner));
  stage('pods are running');
  const results: PhaseResult[] = [];
  for (const phase of phases) {
    if (phase !== phases[0]) await cluster.setBackend(phase.choice);
    const result = await whileRunning(cluster, signal, (inner) =>
      runPhase(cluster, phase, options.clock, inner),
    );
    stage(`${phase.title}: ${result.probes.length} probes, each over TCP and UDP`);
    results.push(result);
  }
  return results;
}

/** Does the work, and gives it up as soon as one of the cluster's programs ends by itself. */
async function whileRunning<T>(
  cluster: Cluster,
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const broken = new AbortController();
  for (const program of cluster.programs()) {
    void program.ended.then((how) => broken.abort(new ProgramEnded(program, how)));
  }
  return await work(AbortSignal.any([signal, broken.signal]));
}

class ProgramEnded extends AgentError {
  readonly program: Program;

  constructor(program: Program, how: string) {
    super('ProgramEnded', `Cannot go on: ${program.name} ended: ${how}`);
    this.program = program;
  }
}

/** What failed, and the last words of the programs that may know why. */
function explain(error: unknown, cluster: Cluster, say: (line: string) => void): void {
  say(`podwire demo: ${messageOf(error)}`);
  const suspects = error instanceof ProgramEnded ? [error.program] : cluster.programs();
  for (const program of suspects) showLog(program, say);
}

const shownLines = 5;

function showLog({ name, logPath }: Program, say: (line: string) => void): void {
  const lines = readFileSync(logPath, 'utf8').trimEnd().split('\n').slice(-shownLines);
  for (const line of lines) if (line !== '') say(`  ${name}: ${line}`);
}

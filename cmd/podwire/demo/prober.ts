/** Sends probes with real packets, over TCP and UDP, until they hold or time is up. */
import type { Clock } from '#pkg/clock/clock.ts';
import { agentSocket, callFrom } from './agent-client.ts';
import { problemOf, refusedWithinMs, type Probe } from './probe.ts';
import type { RunFolder } from './run-folder.ts';

export interface ProbeResult {
  readonly probe: Probe;
  /** Undefined when it holds. */
  readonly problem: string | undefined;
}

export interface ProberOptions {
  readonly run: RunFolder;
  readonly clock: Clock;
  /** The cluster may still be converging: failed probes are sent again for this long. */
  readonly patienceMs: number;
}

const callTimeoutMs = 1000;
/** With three endpoints chosen at random, one is missed by a chance of 3 in 10 million. */
const callsForEveryServer = 40;
const atOnce = 4;

/** Results in the order of the probes. */
export async function sendProbes(
  options: ProberOptions,
  probes: readonly Probe[],
  signal: AbortSignal,
): Promise<ProbeResult[]> {
  const deadlineMs = options.clock.now() + options.patienceMs;
  const results = new Map<Probe, string | undefined>();
  for (;;) {
    const open = probes.filter((probe) => !results.has(probe) || results.get(probe) !== undefined);
    await eachOf(open, async (probe) => {
      signal.throwIfAborted();
      results.set(probe, await sendProbe(options.run, probe));
    });
    const failed = [...results.values()].some((problem) => problem !== undefined);
    if (!failed || options.clock.now() > deadlineMs) break;
    await options.clock.sleep(100, signal);
  }
  return probes.map((probe) => ({ probe, problem: results.get(probe) }));
}

/** What is wrong, over TCP first; undefined when all is as expected. */
async function sendProbe(run: RunFolder, probe: Probe): Promise<string | undefined> {
  for (const protocol of ['tcp', 'udp'] as const) {
    const problem = await sendOver(protocol, run, probe);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

async function sendOver(
  protocol: 'tcp' | 'udp',
  run: RunFolder,
  probe: Probe,
): Promise<string | undefined> {
  const { address, port, expect } = probe;
  const missing = new Set(expect.kind === 'answer' && expect.everyServer ? expect.servers : []);
  for (let calls = 0; calls === 0 || missing.size > 0; calls++) {
    if (calls === callsForEveryServer) {
      const names = [...missing].join(' and ');
      return `${protocol} ${probe.from} → ${address}: no answer from ${names} in ${calls} calls`;
    }
    const timeoutMs = expect.kind === 'refused' ? refusedWithinMs[protocol] + 500 : callTimeoutMs;
    const request = { protocol, address, port, timeoutMs };
    const outcome = await callFrom(agentSocket(run.path, probe.from), request);
    const problem = problemOf(probe, protocol, outcome);
    if (problem !== undefined) return problem;
    if (outcome.ok) missing.delete(outcome.server);
  }
  return undefined;
}

async function eachOf<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const rest = items.values();
  const worker = async (): Promise<void> => {
    for (const item of rest) await work(item);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}

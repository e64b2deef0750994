/**
 * Our part of the configuration of FRR's bgpd, given to it while it runs: a file of ours it would not
 * read, and the file of its own is somebody else's. One that was started again has lost our part;
 * the end of the connection tells.
 */
import { statSync } from 'node:fs';
import type { Clock } from '#pkg/clock/clock.ts';
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import { parseFrrConfig, type FrrConfig, type FrrSpeaker } from '#pkg/frr/config.ts';
import { planFrr } from '#pkg/frr/plan.ts';
import { inStrokes } from '#pkg/frr/strokes.ts';
import { isAnnounced, sessionReason, sessionStates } from '#pkg/frr/state.ts';
import type { VtyReply } from '#pkg/frr/vty-codec.ts';
import { VtySession } from '#pkg/frr/vty.ts';

export interface FrrOptions {
  /** bgpd's. */
  readonly vtySocket: string;
}

export interface FrrContext {
  readonly clock: Clock;
  /** bgpd has ended: when it is back it has nothing of ours. */
  readonly onLost: () => void;
}

export interface FrrDriver extends Disposable {
  /** @param speaker undefined = FRR has nothing to do with us */
  apply(speaker: FrrSpeaker | undefined, signal: AbortSignal): Promise<void>;
  /** What FRR said lately of what does not work. */
  problems(): readonly string[];
}

/** FRR is asked whether it has our part this often when nothing changes. */
const verifyIntervalMs = 30_000;

/**
 * A bgpd as young as this may still be given its own configuration, by `vtysh -b`: an instance that we
 * had made meanwhile would refuse that of another AS. Nor may it have found zebra yet, without which
 * it refuses to be restarted gracefully.
 */
const settlingMs = 3_000;

/** Sessions that are asked why they are not up; more would say the same. */
const maxReasons = 20;

export function createFrrDriver(
  { vtySocket }: FrrOptions,
  { clock, onLost }: FrrContext,
): FrrDriver {
  let session: VtySession | undefined;
  let verifiedAtMs = Number.NEGATIVE_INFINITY;
  /** What bgpd has; undefined = not known. */
  let loaded: string | undefined;
  let problems: readonly string[] = [];
  /** The bgpd that has nothing of ours, by its socket; one that was started again may have read it. */
  let cleared: string | undefined;

  async function opened(signal: AbortSignal): Promise<VtySession> {
    if (session?.isOpen === true) return session;
    loaded = undefined;
    session = await VtySession.open(vtySocket, onLost, signal);
    return session;
  }

  async function converge(speaker: FrrSpeaker, signal: AbortSignal): Promise<void> {
    const vty = await opened(signal);
    const youngMs = settlingMs - ageMs();
    if (youngMs > 0) await clock.sleep(youngMs, signal);
    const have = await observe(vty, signal);
    const plan = planFrr(speaker, have);
    await give(vty, plan.commands, signal);
    // Sessions that were just asked for have had no time to come up.
    const isFresh = plan.commands.length > 0;
    const found = isFresh ? [] : await whatFails(vty, { speaker, have }, signal);
    problems = [...plan.problems, ...found];
  }

  function ageMs(): number {
    return Math.abs(clock.now() - (statSync(vtySocket, { throwIfNoEntry: false })?.mtimeMs ?? 0));
  }

  function socketNow(): string | undefined {
    const there = statSync(vtySocket, { throwIfNoEntry: false });
    return there === undefined ? undefined : `${there.ino} ${there.mtimeMs}`;
  }

  async function clear(signal: AbortSignal): Promise<void> {
    // One that is young may not have read its file yet.
    const asked = ageMs() < settlingMs ? undefined : socketNow();
    problems = [];
    loaded = undefined;
    try {
      const vty = await opened(signal);
      await give(vty, planFrr(undefined, await observe(vty, signal)).commands, signal);
    } catch (error) {
      // One that does not run announces nothing. When it does it may have read our part from its
      // file, where people save all that it has.
      if (isErrno(error, 'ENOENT') || isErrno(error, 'ECONNREFUSED')) return;
      throw error;
    }
    session?.[Symbol.dispose]();
    cleared = asked;
  }

  return {
    problems: () => problems,
    async apply(speaker, signal) {
      if (speaker === undefined) {
        if (cleared === undefined || socketNow() !== cleared) await clear(signal);
        return;
      }
      cleared = undefined;
      const wanted = JSON.stringify(speaker);
      const isKnown = session?.isOpen === true && wanted === loaded;
      if (isKnown && clock.monotonicMs() - verifiedAtMs < verifyIntervalMs) return;
      loaded = undefined;
      await converge(speaker, signal);
      loaded = wanted;
      verifiedAtMs = clock.monotonicMs();
    },
    [Symbol.dispose]: () => session?.[Symbol.dispose](),
  };
}

async function observe(vty: VtySession, signal: AbortSignal): Promise<FrrConfig> {
  return parseFrrConfig(await ask(vty, 'show running-config', signal));
}

/** @throws {AgentError} FrrRefused, with FRR's reason */
async function ask(vty: VtySession, command: string, signal: AbortSignal): Promise<string> {
  return textOf(command, await vty.run(command, signal));
}

/** @throws {AgentError} FrrRefused, with FRR's reason */
function textOf(command: string, { status, text }: VtyReply): string {
  if (status === 0) return text;
  const reason = text.trim().replaceAll(/\s*\n\s*/g, ' ') || `status ${status}`;
  throw new AgentError('FrrRefused', `Cannot configure FRR: it refuses "${command}": ${reason}`);
}

async function give(
  vty: VtySession,
  commands: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  if (commands.length === 0) return;
  await ask(vty, 'configure terminal', signal);
  try {
    for (const stroke of inStrokes(commands)) {
      const replies = await vty.runTogether(stroke, signal);
      for (const [i, reply] of replies.entries()) textOf(stroke[i] ?? '', reply);
    }
  } finally {
    // Out of all blocks, also of one in which a command was refused.
    if (vty.isOpen) await vty.run('end', signal);
  }
}

async function whatFails(
  vty: VtySession,
  { speaker, have }: { readonly speaker: FrrSpeaker; readonly have: FrrConfig },
  signal: AbortSignal,
): Promise<readonly string[]> {
  const found: string[] = [];
  for (const { family, prefix } of speaker.networks) {
    const channel = family === 'ip' ? 'ipv4' : 'ipv6';
    if (isAnnounced(await ask(vty, `show bgp ${channel} unicast ${prefix} json`, signal))) continue;
    found.push(
      `FRR does not announce ${prefix}: it knows no route there, and its "${have.router?.header}" lacks "no bgp network import-check"`,
    );
  }
  if (speaker.neighbors.length === 0) return found;
  const states = sessionStates(await ask(vty, 'show bgp summary json', signal));
  let reasons = 0;
  for (const { address } of speaker.neighbors) {
    const state = states.get(address);
    if (state === undefined || state === 'Established') continue;
    reasons++;
    const reason =
      reasons > maxReasons
        ? ''
        : sessionReason(await ask(vty, `show bgp neighbors ${address} json`, signal), address);
    found.push(
      `BGP session with ${address} of FRR is not up: ${[state, reason].filter((text) => text !== '').join(', ')}`,
    );
  }
  return found;
}

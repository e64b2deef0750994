/**
 * Leaves ipvs mode when another mode serves already. Packets of connections that IPVS has translated
 * know no other translation: taken away at once, they would go nowhere, and clients would wait for a
 * time-out. New connections do not come here any more, since the other mode translates them before
 * the kernel's IPVS sees them.
 */
import type { Clock } from '#pkg/clock/clock.ts';
import type { IpvsStep } from '#pkg/ipvs/plan.ts';
import { serverKey, type VirtualServer } from '#pkg/ipvs/virtual-server.ts';
import type { Logger } from '#pkg/log/logger.ts';

/** The kernel's IPVS; `cleanup.ts` has that of the host. */
export interface RetiringIpvs {
  /** Virtual servers that may be taken away. */
  servers(): Promise<readonly VirtualServer[]>;
  apply(steps: readonly IpvsStep[]): Promise<void>;
  /** Connections of TCP and SCTP through these servers, without those that are ending. */
  connections(keys: ReadonlySet<string>): Promise<number>;
  /** Makes the kernel forget UDP flows to these servers: their next packet is translated anew. */
  forgetFlows(servers: readonly VirtualServer[]): Promise<void>;
}

export interface RetirementParts {
  readonly ipvs: RetiringIpvs;
  readonly clock: Clock;
  readonly log: Logger;
}

const lookIntervalMs = 5_000;
/** A connection may last for months: those left by then are reset. */
const limitMs = 3_600_000;
/** The kernel drops one packet of a connection whose server is gone, and resets at the second. */
const resetMs = 5_000;

/**
 * Takes the virtual servers away when their connections have ended. The addresses are to be taken
 * away after it. Returns early, without having done so, when the signal aborts: the next proxy goes on.
 */
export async function retireIpvs(
  { clock, ipvs, log }: RetirementParts,
  signal: AbortSignal,
): Promise<void> {
  const servers = await ipvs.servers();
  const flows = servers.filter(({ protocol }) => protocol === 'udp');
  const lasting = servers.filter(({ protocol }) => protocol !== 'udp');
  await ipvs.apply([...flows.map(deletion), ...lasting.flatMap(quiesced)]);
  await ipvs.forgetFlows(flows);
  const keys = new Set(lasting.map(serverKey));
  const startedMs = clock.monotonicMs();
  let isTold = false;
  let count: number;
  for (;;) {
    count = await ipvs.connections(keys);
    if (count === 0 || clock.monotonicMs() - startedMs >= limitMs) break;
    if (!isTold) {
      const shown = { connections: count, atMostMs: limitMs };
      log.info(shown, 'What mode ipvs left stays until its connections have ended');
    }
    isTold = true;
    await clock.sleep(lookIntervalMs, signal);
  }
  await ipvs.apply(lasting.map(deletion));
  if (count === 0) return;
  log.warn({ connections: count }, 'Connections through mode ipvs are reset');
  await clock.sleep(resetMs, signal);
}

function deletion(server: VirtualServer): IpvsStep {
  return { op: 'delete-server', key: serverKey(server) };
}

/** With weight 0 connections go on and none is added, should a packet come here all the same. */
function quiesced(server: VirtualServer): IpvsStep[] {
  const key = serverKey(server);
  return server.realServers
    .filter(({ weight }) => weight !== 0)
    .map((real) => ({ op: 'edit-real', key, real: { ...real, weight: 0 } }));
}

/** Endpoints that are leaving: which, and what is to be done when their connections have ended. */
import type { IpvsStep } from '#pkg/ipvs/plan.ts';
import { endpointText, type VirtualServer } from '#pkg/ipvs/virtual-server.ts';

/** Of `have`, the virtual servers with endpoints that take no new connections, by key. */
export function leavingOf(have: ReadonlyMap<string, VirtualServer>): Map<string, VirtualServer> {
  const leaving = new Map<string, VirtualServer>();
  for (const [key, server] of have) {
    if (server.realServers.some(({ weight }) => weight === 0)) leaving.set(key, server);
  }
  return leaving;
}

/**
 * Takes those without connections out of `have`, and returns the steps that do so in the kernel: with
 * its last endpoint a virtual server goes, too.
 *
 * @param connections by both the keys of virtual and real servers
 */
export function takeIdle(
  have: Map<string, VirtualServer>,
  leaving: ReadonlyMap<string, VirtualServer>,
  connections: ReadonlyMap<string, ReadonlyMap<string, number>>,
): IpvsStep[] {
  const steps: IpvsStep[] = [];
  for (const [key, server] of leaving) {
    const of = connections.get(key);
    const idle = server.realServers.filter(
      (real) => real.weight === 0 && (of?.get(endpointText(real)) ?? 0) === 0,
    );
    const realServers = server.realServers.filter((real) => !idle.includes(real));
    if (realServers.length > 0) {
      steps.push(...idle.map((real): IpvsStep => ({ op: 'delete-real', key, real })));
      have.set(key, { ...server, realServers });
    } else {
      steps.push({ op: 'delete-server', key });
      have.delete(key);
    }
  }
  return steps;
}

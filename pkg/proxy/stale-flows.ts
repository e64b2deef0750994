/**
 * Which UDP flows the kernel must forget: a flow that goes on keeps the endpoint it was once
 * translated to, and a client that never changes its port would talk to a pod that is gone, or to
 * nobody, for hours. TCP and SCTP end by themselves, and ending them would cut sessions that an
 * ending pod still serves.
 */
import type { FlowDestination, TrackedFlow } from '#pkg/conntrack/flow.ts';
import { formatEndpoint } from './address-text.ts';
import {
  destinationKey,
  destinationsOf,
  type ServedDestinations,
  type ServiceDestination,
} from './flow-destinations.ts';
import type { PortChange } from './service-model.ts';

/** What to look at, and the judgement on what is found there. */
export interface FlowReview {
  readonly destinations: readonly FlowDestination[];
  readonly isStale: (flow: TrackedFlow) => boolean;
}

/**
 * Destinations at which flows may have become stale, by {@link destinationKey}. More endpoints are
 * no reason to look, with one exception: where nobody served before, flows from the time before the
 * rules may go on untranslated (kubernetes/kubernetes#126468).
 */
export function doubtfulDestinations(
  changes: Iterable<PortChange>,
): ReadonlyMap<string, ServiceDestination> {
  const doubtful = new Map<string, ServiceDestination>();
  for (const { old, new: now } of changes) {
    if (old?.protocol !== 'udp' && now?.protocol !== 'udp') continue;
    const before = old === undefined ? [] : destinationsOf(old);
    const after = now === undefined ? [] : destinationsOf(now);
    const kept = new Map(after.map((d) => [destinationKey(d.destination), d.targets]));
    const known = new Set(before.map((d) => destinationKey(d.destination)));
    for (const { destination, targets } of before) {
      const key = destinationKey(destination);
      const left = kept.get(key);
      const isFirst = targets.size === 0 && left !== undefined && left.size > 0;
      if (left === undefined || isFirst || !targets.isSubsetOf(left)) {
        doubtful.set(key, destination);
      }
    }
    for (const { destination } of after) {
      const key = destinationKey(destination);
      if (!known.has(key)) doubtful.set(key, destination);
    }
  }
  return doubtful;
}

/**
 * The judgement by what the rules say now. Where Services answer, a flow is stale unless it goes to
 * one of their endpoints; so it is when there are none. Where none answers any more, it is stale if
 * it is translated: untranslated flows to that address are somebody else's.
 *
 * @param rules what the rules serve
 * @param nodePortAddresses on which node ports answer here, canonical. Flows to other hosts' ports
 *   of the same number are nobody's business (kubernetes/kubernetes#49881).
 */
export function reviewFlows(
  doubtful: Iterable<ServiceDestination>,
  rules: Pick<ServedDestinations, 'targets'>,
  nodePortAddresses: readonly string[],
): FlowReview {
  const destinations = [...doubtful].map((destination): FlowDestination => {
    const { kind, port } = destination;
    return { addresses: kind === 'address' ? [destination.address] : nodePortAddresses, port };
  });
  const served = new Map<string, ReadonlySet<string> | undefined>();
  for (const { addresses, port } of destinations) {
    for (const address of addresses) {
      const isNodePort = nodePortAddresses.includes(address);
      // A Service's external address may be one that node ports answer on: whichever the rules
      // prefer, both may be right, and so may two Services that claim one address.
      const claims = [
        rules.targets({ kind: 'address', address, port }),
        isNodePort ? rules.targets({ kind: 'node-port', port }) : undefined,
      ].filter((targets) => targets !== undefined);
      const [first, ...rest] = claims;
      served.set(
        formatEndpoint(address, port),
        rest.reduce((all, targets) => all?.union(targets), first),
      );
    }
  }
  return {
    destinations: destinations.filter(({ addresses }) => addresses.length > 0),
    isStale: ({ destination, server }) => {
      if (!served.has(destination)) return false;
      const targets = served.get(destination);
      return targets === undefined ? server !== destination : !targets.has(server);
    },
  };
}

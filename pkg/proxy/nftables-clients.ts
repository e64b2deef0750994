/**
 * Which remembered clients must be forgotten: those whose endpoint their Service's address does not
 * lead to any more. The map of clients is filled by packets, so it is not part of any plan.
 */
import { elementsOf } from './nftables-elements.ts';
import type { NftablesOptions } from './nftables-options.ts';
import type { ProxiedPort } from './proxied-port.ts';

/** By frontend ("10.96.0.10 . tcp . 80", "tcp . 30080"): the endpoints its clients may keep. */
export type KeptEndpoints = ReadonlyMap<string, ReadonlySet<string>>;

/** What a change of a port means for its clients; empty when all may keep their endpoint. */
export function keptEndpoints(
  old: ProxiedPort | undefined,
  now: ProxiedPort | undefined,
  options: NftablesOptions,
): KeptEndpoints {
  if (old === undefined || old.affinitySeconds === 0) return new Map();
  const before = stickyFrontends(old, options);
  const after = now === undefined ? new Map() : stickyFrontends(now, options);
  // With another policy a client may have an endpoint that it must not reach now.
  const samePolicy =
    now !== undefined &&
    old.internalPolicy === now.internalPolicy &&
    old.externalPolicy === now.externalPolicy;
  const kept = new Map<string, ReadonlySet<string>>();
  for (const [frontend, endpoints] of before) {
    const still: ReadonlySet<string> = (samePolicy ? after.get(frontend) : undefined) ?? new Set();
    if (!endpoints.isSubsetOf(still)) kept.set(frontend, still);
  }
  return kept;
}

/** All frontends of all ports with affinity: after a start nothing is known of what was before. */
export function allKeptEndpoints(
  ports: Iterable<ProxiedPort>,
  options: NftablesOptions,
): KeptEndpoints {
  const kept = new Map<string, ReadonlySet<string>>();
  for (const port of ports) {
    if (port.affinitySeconds === 0) continue;
    for (const [key, endpoints] of stickyFrontends(port, options)) kept.set(key, endpoints);
  }
  return kept;
}

/**
 * Whether a remembered client ("10.96.0.10 . tcp . 80 . 10.244.1.5", "10.244.2.7 . 8080") goes to an
 * endpoint that is none any more.
 *
 * @param isComplete `kept` has every frontend there is: clients of others are forgotten too
 */
export function isForgotten(
  client: { readonly key: string; readonly value: string },
  kept: KeptEndpoints,
  isComplete: boolean,
): boolean {
  const [address = '', protocol = '', port = ''] = client.key.split(' . ');
  const endpoints =
    kept.get(`${address} . ${protocol} . ${port}`) ?? kept.get(`${protocol} . ${port}`);
  return endpoints === undefined ? isComplete : !endpoints.has(client.value);
}

function stickyFrontends(
  port: ProxiedPort,
  options: NftablesOptions,
): Map<string, ReadonlySet<string>> {
  const isSlot = (set: string): boolean => set === 'endpoints' || set === 'node-port-endpoints';
  return new Map(
    elementsOf(port, options).frontends.map(({ key, elements }) => [
      key,
      new Set(elements.filter(({ set }) => isSlot(set)).map(({ value }) => value)),
    ]),
  );
}

/**
 * Addresses that belong to other hosts, as far as the cluster says: those of the other Nodes, and the
 * API server's. Mode ipvs makes external addresses of Services the host's own, and must not take one
 * of these: the host there could not be reached from here any more, for whatever purpose
 * (kubernetes/kubernetes#104679, #127410).
 */
import type { Clock } from '#pkg/clock/clock.ts';
import type { KubeClient } from '#pkg/kube/client.ts';
import { projectNodeAddresses } from '#pkg/kube/project.ts';
import { allNodes } from '#pkg/kube/resources.ts';
import { createStore } from '#pkg/kube/store.ts';
import type { NodeAddressesRecord, ServiceRecord } from '#pkg/kube/types.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { canonicalAddress } from '#pkg/proxy/address-text.ts';

export interface OtherHosts {
  /** Canonical, the same object until they change; undefined while they are not known. */
  current(): ReadonlySet<string> | undefined;
  /** Resolves when they are known, or after some time: Services must not wait for ever. */
  whenKnown(signal: AbortSignal): Promise<void>;
  onChange(notify: () => void): Disposable;
}

export interface OtherHostsParts {
  readonly client: Pick<KubeClient, 'watchResource'>;
  readonly nodeName: string;
  /** The API server's URL. */
  readonly server: string;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Not every proxy has the right to read all Nodes; kube-proxy's has. Thousands take a while. */
const patienceMs = 15_000;

/**
 * Watches all Nodes from the first question on, and not before: with thousands of nodes this is a load
 * on the API server, and most clusters never ask.
 */
export function createOtherHosts(
  { client, clock, log, nodeName, server }: OtherHostsParts,
  signal: AbortSignal,
): OtherHosts {
  // A Node's status changes every few minutes without saying anything new.
  const store = createStore<NodeAddressesRecord>({ ignoreVersions: true });
  const listeners = new Set<() => void>();
  const { hostname } = new URL(server);
  const apiServer = canonicalAddress(hostname.replace(/^\[(.*)\]$/, '$1'));
  const first = apiServer === undefined ? [] : [apiServer];
  let addresses: ReadonlySet<string> | undefined;
  let known: Promise<void> | undefined;
  let isKnown = false;
  const tell = (): void => {
    addresses = undefined;
    for (const notify of listeners) notify();
  };
  const start = async (): Promise<void> => {
    client.watchResource(allNodes, projectNodeAddresses, store, signal);
    const late = clock.sleep(patienceMs, signal).then(() => {
      if (store.synced) return;
      log.warn(
        {},
        'Nodes are not known: an external address of a Service that is another node’s cuts that off',
      );
    });
    await Promise.race([store.whenSynced(signal), late]);
    isKnown = true;
    store.onChange(tell);
    tell();
  };
  // Nobody is told of its end but by a signal, which all have.
  const started = (): Promise<void> => (known ??= start().catch(() => undefined));
  return {
    current: () => {
      void started();
      if (!isKnown) return undefined;
      return (addresses ??= new Set([
        ...first,
        ...[...store.snapshot().values()]
          .filter(({ name }) => name !== nodeName)
          .flatMap((node) => node.addresses)
          .flatMap((text) => canonicalAddress(text) ?? []),
      ]));
    },
    whenKnown: async (until) => {
      await Promise.race([started(), store.whenSynced(until).then(started)]);
    },
    onChange: (notify) => {
      listeners.add(notify);
      return { [Symbol.dispose]: () => void listeners.delete(notify) };
    },
  };
}

/** Whether a Service claims an address that may be another host's. */
export function hasExternalAddress(
  services: Iterable<Pick<ServiceRecord, 'externalIPs' | 'loadBalancerIngress'>>,
): boolean {
  for (const { externalIPs, loadBalancerIngress } of services) {
    if (externalIPs.length + loadBalancerIngress.length > 0) return true;
  }
  return false;
}

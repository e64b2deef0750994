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
import type { NodeAddressesRecord } from '#pkg/kube/types.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { canonicalAddress } from '#pkg/proxy/address-text.ts';

export interface OtherHosts {
  /** Canonical. The same object until they change. */
  current(): ReadonlySet<string>;
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

export function watchOtherHosts(
  { client, clock, log, nodeName, server }: OtherHostsParts,
  signal: AbortSignal,
): OtherHosts {
  // A Node's status changes every few minutes without saying anything new.
  const store = createStore<NodeAddressesRecord>({ ignoreVersions: true });
  client.watchResource(allNodes, projectNodeAddresses, store, signal);
  const { hostname } = new URL(server);
  const apiServer = canonicalAddress(hostname.replace(/^\[(.*)\]$/, '$1'));
  const first = apiServer === undefined ? [] : [apiServer];
  let known: ReadonlySet<string> | undefined;
  store.onChange(() => {
    known = undefined;
  });
  return {
    current: () =>
      (known ??= new Set([
        ...first,
        ...[...store.snapshot().values()]
          .filter(({ name }) => name !== nodeName)
          .flatMap(({ addresses }) => addresses)
          .flatMap((text) => canonicalAddress(text) ?? []),
      ])),
    whenKnown: async (until) => {
      const late = clock.sleep(patienceMs, until).then(() => {
        if (store.synced) return;
        log.warn(
          {},
          'Nodes are not known: an external address of a Service that is another node’s cuts that off',
        );
      });
      await Promise.race([store.whenSynced(until), late]);
    },
    onChange: (notify) => store.onChange(notify),
  };
}

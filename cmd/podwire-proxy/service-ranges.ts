/** The ranges that cluster addresses are taken from: ServiceCIDR objects (KEP-1880). */
import type { Clock } from '#pkg/clock/clock.ts';
import type { Prefix } from '#pkg/ip/prefix.ts';
import type { KubeClient } from '#pkg/kube/client.ts';
import { projectServiceCIDR } from '#pkg/kube/project.ts';
import { allServiceCIDRs } from '#pkg/kube/resources.ts';
import { createStore } from '#pkg/kube/store.ts';
import type { ServiceCIDRRecord } from '#pkg/kube/types.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { prefixFromApi } from '#pkg/proxy/address-text.ts';

export interface ServiceRanges {
  /** Sorted as text; none while they are not known. */
  current(): readonly Prefix[];
  /** Resolves when they are known, or after some seconds: Services must not wait for ever. */
  whenKnown(signal: AbortSignal): Promise<void>;
  onChange(notify: () => void): Disposable;
}

/** A server before 1.33 has none, and not every proxy has the right to read them. */
const patienceMs = 3_000;

export function watchServiceRanges(
  client: Pick<KubeClient, 'watchResource'>,
  { clock, log }: { readonly clock: Clock; readonly log: Logger },
  signal: AbortSignal,
): ServiceRanges {
  const store = createStore<ServiceCIDRRecord>();
  client.watchResource(allServiceCIDRs, projectServiceCIDR, store, signal);
  return {
    current: () =>
      [...store.snapshot().values()]
        .flatMap(({ cidrs }) => cidrs)
        .toSorted()
        .flatMap((text) => prefixFromApi(text) ?? []),
    whenKnown: async (until) => {
      const late = clock.sleep(patienceMs, until).then(() => {
        if (store.synced) return;
        log.info(
          {},
          'ServiceCIDRs are not known: what goes to an address of no Service is not dropped',
        );
      });
      await Promise.race([store.whenSynced(until), late]);
    },
    onChange: (notify) => store.onChange(notify),
  };
}

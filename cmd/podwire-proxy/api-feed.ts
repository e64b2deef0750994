/** What the API says anew, each time a round asks: everything first, then what changed. */
import type { Store, Subscription } from '#pkg/kube/store.ts';
import type { EndpointSliceRecord, ServiceRecord } from '#pkg/kube/types.ts';
import type { News, NewsOf } from '#pkg/proxy/model-parts.ts';

export interface ApiFeed extends Disposable {
  /** Everything at the first call, afterwards what changed since the one before. */
  take(): News;
}

/** The first call may come once both stores are synced, not before. */
export function createApiFeed(
  services: Store<ServiceRecord>,
  slices: Store<EndpointSliceRecord>,
): ApiFeed {
  // Not before: what is taken at first as everything need not be remembered as changes too.
  let changed:
    | {
        readonly services: Subscription<ServiceRecord>;
        readonly slices: Subscription<EndpointSliceRecord>;
      }
    | undefined;
  return {
    take: () => {
      if (changed !== undefined) {
        return { services: changed.services.drain(), slices: changed.slices.drain() };
      }
      changed = {
        services: services.subscribe(() => undefined),
        slices: slices.subscribe(() => undefined),
      };
      return { services: everything(services), slices: everything(slices) };
    },
    [Symbol.dispose]: () => {
      changed?.services[Symbol.dispose]();
      changed?.slices[Symbol.dispose]();
    },
  };
}

/** Made as it is read: all at once would take long, and memory. */
function everything<T extends ServiceRecord | EndpointSliceRecord>(store: Store<T>): NewsOf<T> {
  const records = store.snapshot();
  return {
    length: records.size,
    *[Symbol.iterator]() {
      for (const [key, record] of records) yield { key, new: record };
    },
  };
}

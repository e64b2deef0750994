/** What the API says anew, each time a round asks: everything first, then what changed. */
import type { Store } from '#pkg/kube/store.ts';
import type { EndpointSliceRecord, ServiceRecord } from '#pkg/kube/types.ts';
import type { ModelInput } from '#pkg/proxy/service-model.ts';

export interface ApiFeed extends Disposable {
  /** Everything at the first call, afterwards what changed since the one before. */
  take(): ModelInput;
}

/** The first call may come once both stores are synced, not before. */
export function createApiFeed(
  services: Store<ServiceRecord>,
  slices: Store<EndpointSliceRecord>,
): ApiFeed {
  const changedServices = services.subscribe(() => undefined);
  const changedSlices = slices.subscribe(() => undefined);
  let begun = false;
  return {
    take: () => {
      const changes = { services: changedServices.drain(), slices: changedSlices.drain() };
      if (begun) return changes;
      begun = true;
      return { services: everything(services), slices: everything(slices) };
    },
    [Symbol.dispose]: () => {
      changedServices[Symbol.dispose]();
      changedSlices[Symbol.dispose]();
    },
  };
}

function everything<T extends ServiceRecord | EndpointSliceRecord>(
  store: Store<T>,
): { readonly key: string; readonly new: T }[] {
  return [...store.snapshot()].map(([key, record]) => ({ key, new: record }));
}

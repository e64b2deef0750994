/** Cuts much news into parts, so that taking it in does not keep everything else waiting. */
import type { Change } from '#pkg/kube/store.ts';
import { objectKey, type EndpointSliceRecord, type ServiceRecord } from '#pkg/kube/types.ts';
import type { ModelInput } from './service-model.ts';

/** What is told of one kind of object; may be made while it is read. */
export type NewsOf<T> = Iterable<Pick<Change<T>, 'key' | 'new'>> & { readonly length: number };

export interface News {
  readonly services: NewsOf<ServiceRecord>;
  readonly slices: NewsOf<EndpointSliceRecord>;
}

/** Taking in a Service with its slices is some tens of microseconds, several times that at first. */
const servicesPerPart = 100;
/** Sorting out what belongs together is one or two, and ten at first. */
const changesPerTurn = 1_000;

const nothing: ModelInput = { services: [], slices: [] };

/**
 * The same news, a Service with its slices at a time: a model that took in all slices before the
 * first Service would look at each Service twice. Deleted slices, whose Service is not told, come
 * first. In parts of one Service the order does not matter. Empty parts give others a turn.
 */
export function* newsParts(news: News): Generator<ModelInput, void, undefined> {
  if (news.services.length + news.slices.length <= servicesPerPart) {
    yield { services: [...news.services], slices: [...news.slices] };
    return;
  }
  let sorted = 0;
  const isTurnOver = (): boolean => (sorted += 1) % changesPerTurn === 0;
  const slicesOf = new Map<string, ModelInput['slices'][number][]>();
  const deleted: ModelInput['slices'][number][] = [];
  for (const change of news.slices) {
    if (isTurnOver()) yield nothing;
    if (change.new === undefined) {
      deleted.push(change);
      continue;
    }
    const owner = objectKey({ namespace: change.new.namespace, name: change.new.serviceName });
    const slices = slicesOf.get(owner);
    if (slices === undefined) slicesOf.set(owner, [change]);
    else slices.push(change);
  }
  if (deleted.length > 0) yield { services: [], slices: deleted };
  let services: ModelInput['services'][number][] = [];
  let slices: ModelInput['slices'][number][] = [];
  for (const change of news.services) {
    services.push(change);
    slices.push(...(slicesOf.get(change.key) ?? []));
    slicesOf.delete(change.key);
    if (services.length < servicesPerPart) continue;
    yield { services, slices };
    services = [];
    slices = [];
  }
  yield { services, slices };
  // Of Services that are not news themselves.
  let owners = 0;
  slices = [];
  for (const own of slicesOf.values()) {
    slices.push(...own);
    owners += 1;
    if (owners % servicesPerPart !== 0) continue;
    yield { services: [], slices };
    slices = [];
  }
  yield { services: [], slices };
}

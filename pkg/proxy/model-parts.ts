/** Cuts much news into parts, so that taking it in does not keep everything else waiting. */
import { objectKey } from '#pkg/kube/types.ts';
import type { ModelInput } from './service-model.ts';

/** Taking in a Service with its slices is some tens of microseconds. */
const servicesPerPart = 200;
/** Sorting out what belongs together is one or two. */
const changesPerTurn = 4_000;

const nothing: ModelInput = { services: [], slices: [] };

/**
 * The same news, a Service with its slices at a time: a model that took in all slices before the
 * first Service would look at each Service twice. Deleted slices, whose Service is not told, come
 * first. In parts of one Service the order does not matter. Empty parts give others a turn.
 */
export function* newsParts(news: ModelInput): Generator<ModelInput, void, undefined> {
  if (news.services.length + news.slices.length <= servicesPerPart) {
    yield news;
    return;
  }
  const slicesOf = new Map<string, ModelInput['slices'][number][]>();
  const deleted: ModelInput['slices'][number][] = [];
  for (const [i, change] of news.slices.entries()) {
    if (i % changesPerTurn === changesPerTurn - 1) yield nothing;
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
  const services = new Map(news.services.map((change) => [change.key, change]));
  yield nothing;
  const keys = [...new Set([...services.keys(), ...slicesOf.keys()])];
  yield nothing;
  for (let at = 0; at < keys.length; at += servicesPerPart) {
    const part = keys.slice(at, at + servicesPerPart);
    yield {
      services: part.flatMap((key) => services.get(key) ?? []),
      slices: part.flatMap((key) => slicesOf.get(key) ?? []),
    };
  }
}

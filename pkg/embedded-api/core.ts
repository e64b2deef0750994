/** The server without its network side: storage, kinds, rules, and what follows from writes. */
import type { Clock } from '#pkg/clock/clock.ts';
import { parsePrefix, type Prefix } from '#pkg/ip/prefix.ts';
import { ServiceAllocations } from './admission/service-allocations.ts';
import { builtinKindInfos } from './builtin-kinds.ts';
import { kindsOf } from './custom-kinds.ts';
import {
  deleteObject,
  endNamespaceIfEmpty,
  type DeleteOptions,
  type Deletion,
} from './deletion.ts';
import type { JsonObject } from './json.ts';
import type { SavedState } from './journal.ts';
import { isNamespaceKind, KindRegistry } from './kinds.ts';
import { keyOf, type KubeObject } from './object.ts';
import { Operations, type ObjectRef, type WriteOptions } from './operations.ts';
import { Storage } from './storage.ts';
import type { Change } from './watch-log.ts';

export interface CoreOptions {
  /** Ranges Services get their cluster addresses from; the first is the default family's. */
  readonly serviceCIDRs: readonly string[];
  /** Changes kept for watches to resume from. */
  readonly compactionWindowEvents: number;
  readonly clock: Clock;
  /** State of an earlier run. */
  readonly saved: SavedState | undefined;
}

export interface Core {
  readonly storage: Storage;
  readonly kinds: KindRegistry;
  readonly operations: Operations;
  readonly clock: Clock;
  /** As {@link Operations.update}; also ends what only waited for this update. */
  update(ref: ObjectRef, draft: JsonObject, options?: WriteOptions): KubeObject;
  /** As `deleteObject`; also ends a Namespace that only waited for this object. */
  delete(ref: ObjectRef, options?: DeleteOptions): Deletion;
}

const definitions = 'customresourcedefinitions.apiextensions.k8s.io';

/**
 * Builds the core, with the saved state or empty.
 *
 * @throws {AgentError} InvalidPrefix
 */
export function createCore(options: CoreOptions): Core {
  const { clock, saved } = options;
  // A server that remembers nothing must not count from where an earlier one began: a client of
  // that one would wait for ever for a version to come. So it is told 410 Gone, and lists again.
  // Microseconds: no server writes more often than that.
  const firstRevision = saved?.revision ?? clock.now() * 1000;
  const storage = new Storage(options.compactionWindowEvents, firstRevision);
  const kinds = new KindRegistry(builtinKindInfos);
  const ranges: readonly Prefix[] = options.serviceCIDRs.map(parsePrefix);
  const allocations = new ServiceAllocations(ranges);
  const operations = new Operations({ storage, allocations, clock });

  const follow = (change: Change): void => {
    if (change.resource === 'services') allocations.follow(change);
    if (change.resource === definitions) {
      const { name } = change.object.metadata;
      kinds.setCustom(name, change.type === 'DELETED' ? [] : kindsOf(change.object));
    }
  };
  storage.subscribe(follow);
  for (const [resource, object] of saved?.objects ?? []) {
    const key = keyOf(object);
    storage.restore(resource, key, object);
    follow({ revision: 0, resource, key, type: 'ADDED', object, previous: undefined });
  }
  return {
    storage,
    kinds,
    operations,
    clock,
    update: (ref, draft, writeOptions) => {
      const object = operations.update(ref, draft, writeOptions);
      const namespace = isNamespaceKind(ref.kind) ? ref.name : ref.namespace;
      if (operations.find(ref) === undefined || isNamespaceKind(ref.kind)) {
        endNamespaceIfEmpty(operations, kinds, namespace);
      }
      return object;
    },
    delete: (ref, deleteOptions) => {
      const deletion = deleteObject(operations, kinds, ref, deleteOptions);
      if (deletion.gone) endNamespaceIfEmpty(operations, kinds, ref.namespace);
      return deletion;
    },
  };
}

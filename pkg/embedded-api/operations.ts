/**
 * What can be done with objects, as the API promises it: names and versions are checked, rules
 * applied, and what is stored is complete. Every operation is one synchronous step, so nothing
 * can come between its checks and its write.
 */
import { randomUUID } from 'node:crypto';
import type { Clock } from '#pkg/clock/clock.ts';
import {
  alreadyExists,
  badRequest,
  forbidden,
  invalid,
  notFound,
  type FieldError,
} from './api-error.ts';
import type { ServiceAllocations } from './admission/service-allocations.ts';
import { rulesOf } from './builtin-kinds.ts';
import { asVersion, readDraft } from './draft.ts';
import { generatedName } from './generated-name.ts';
import { textAt, without, type JsonObject } from './json.ts';
import type { KindRules } from './kind-rules.ts';
import { isNamespaceKind, resourceOf, type KindInfo } from './kinds.ts';
import { admitUpdate, sameObject, withNextGeneration, type Subresource } from './object-update.ts';
import { objectKey, timestamp, withMeta, type KubeObject } from './object.ts';
import type { Storage } from './storage.ts';

/** What a request wants beside its object. */
export interface WriteOptions {
  /** Check everything, store nothing. */
  readonly dryRun?: boolean;
  readonly subresource?: Subresource;
}

/** One object of one kind. */
export interface ObjectRef {
  readonly kind: KindInfo;
  /** Empty for cluster-scoped kinds. */
  readonly namespace: string;
  readonly name: string;
}

export interface OperationsOptions {
  readonly storage: Storage;
  readonly allocations: ServiceAllocations;
  readonly clock: Clock;
}

export class Operations {
  readonly storage: Storage;
  readonly clock: Clock;
  readonly #allocations: ServiceAllocations;

  constructor(options: OperationsOptions) {
    this.storage = options.storage;
    this.clock = options.clock;
    this.#allocations = options.allocations;
  }

  /** @throws {ApiError} NotFound */
  get(ref: ObjectRef): KubeObject {
    const object = this.find(ref);
    if (object === undefined) throw notFound(ref.kind, ref.name);
    return asVersion(object, ref.kind);
  }

  find(ref: ObjectRef): KubeObject | undefined {
    return this.storage.get(resourceOf(ref.kind), objectKey(ref.namespace, ref.name));
  }

  /**
   * Stores a new object and returns it complete.
   *
   * @throws {ApiError} AlreadyExists, BadRequest, Forbidden, Invalid, NotFound (its namespace)
   */
  create(
    kind: KindInfo,
    namespace: string,
    draft: JsonObject,
    options: WriteOptions = {},
  ): KubeObject {
    const named = this.#newObject(kind, namespace, draft);
    const ref = { kind, namespace, name: named.metadata.name };
    if (kind.namespaced) this.#requireNamespace(namespace, kind, named.metadata.name);
    if (this.find(ref) !== undefined) throw alreadyExists(kind, ref.name);
    const object = this.#admit(kind, named, undefined);
    if (options.dryRun === true) return object;
    return this.storage.put(resourceOf(kind), objectKey(namespace, ref.name), object);
  }

  /**
   * Replaces an object (or, as a subresource, its status) and returns what is stored now. Storing
   * what is stored already changes nothing, not even the version.
   *
   * @throws {ApiError} BadRequest, Conflict, Invalid, NotFound
   */
  update(ref: ObjectRef, draft: JsonObject, options: WriteOptions = {}): KubeObject {
    const old = this.get(ref);
    const object = admitUpdate({ kind: ref.kind, old, draft, subresource: options.subresource });
    const admitted = withNextGeneration(this.#admit(ref.kind, object, old), old);
    if (sameObject(admitted, old)) return old;
    if (options.dryRun === true) return admitted;
    return this.#store(ref, admitted);
  }

  /** Removes an object at once, whatever finalizers it has: how the server itself ends one. */
  remove(ref: ObjectRef): KubeObject | undefined {
    return this.storage.remove(resourceOf(ref.kind), objectKey(ref.namespace, ref.name));
  }

  /**
   * Stores an update; an object that is only waiting for its finalizers goes with the last, except
   * a Namespace: that goes when it is empty, too.
   */
  #store(ref: ObjectRef, object: KubeObject): KubeObject {
    const { metadata } = object;
    const waits = (metadata.finalizers ?? []).length > 0;
    const grace = metadata.deletionGracePeriodSeconds ?? 0;
    if (
      metadata.deletionTimestamp !== undefined &&
      !waits &&
      grace === 0 &&
      !isNamespaceKind(ref.kind)
    ) {
      return this.remove(ref) ?? object;
    }
    return this.storage.put(resourceOf(ref.kind), objectKey(ref.namespace, ref.name), object);
  }

  /** Marks an object as going, without removing it. */
  markDeleted(ref: ObjectRef, graceSeconds: number): KubeObject {
    const old = this.get(ref);
    const at = timestamp(this.clock.now() + graceSeconds * 1000);
    const marked = withMeta(old, {
      deletionTimestamp: at,
      deletionGracePeriodSeconds: graceSeconds,
      generation: (old.metadata.generation ?? 0) + 1,
    });
    const object = rulesOf(ref.kind).withDefaults?.(marked, old) ?? marked;
    return this.storage.put(resourceOf(ref.kind), objectKey(ref.namespace, ref.name), object);
  }

  /** The object with what the server decides: identity, times, first generation. */
  #newObject(kind: KindInfo, namespace: string, draft: JsonObject): KubeObject {
    const given = readDraft(kind, draft);
    const { metadata } = given;
    if (textAt(metadata, 'resourceVersion') !== '') {
      throw badRequest('resourceVersion should not be set on objects to be created');
    }
    const own = metadata.namespace ?? '';
    if (own !== '' && own !== namespace) {
      throw badRequest(
        'the namespace of the provided object does not match the namespace sent on the request',
      );
    }
    const name = metadata.name ?? this.#freeName(kind, namespace, metadata.generateName ?? '');
    const object: KubeObject = {
      ...given,
      metadata: {
        ...without(metadata, ...serverOwned),
        name,
        ...(kind.namespaced ? { namespace } : {}),
        uid: randomUUID(),
        resourceVersion: '',
        generation: 1,
        creationTimestamp: timestamp(this.clock.now()),
      },
    };
    return kind.hasStatus && !keepsStatusOnCreate.has(kind.kind) ? withoutStatus(object) : object;
  }

  #freeName(kind: KindInfo, namespace: string, prefix: string): string {
    if (prefix === '') {
      const message = 'name or generateName is required';
      throw invalid(kind, '', [
        {
          field: 'metadata.name',
          reason: 'FieldValueRequired',
          message: `Required value: ${message}`,
        },
      ]);
    }
    for (;;) {
      const name = generatedName(prefix);
      if (this.find({ kind, namespace, name }) === undefined) return name;
    }
  }

  #requireNamespace(namespace: string, kind: KindInfo, name: string): void {
    const found = this.storage.get('namespaces', namespace);
    if (found === undefined) {
      throw notFound({ group: '', plural: 'namespaces', kind: 'Namespace' }, namespace);
    }
    if (found.metadata.deletionTimestamp !== undefined) {
      const why = `unable to create new content in namespace ${namespace} because it is being terminated`;
      throw forbidden(`${resourceOf(kind)} "${name}" is forbidden: ${why}`);
    }
  }

  #admit(kind: KindInfo, object: KubeObject, old: KubeObject | undefined): KubeObject {
    const rules: KindRules = rulesOf(kind);
    const filled = rules.withDefaults?.(object, old) ?? object;
    refuseAny(kind, filled, rules.validate?.(filled, old) ?? []);
    const context = { allocations: this.#allocations };
    const allocated = rules.allocate?.(filled, old, context) ?? filled;
    if (isErrorList(allocated)) {
      refuseAny(kind, filled, allocated);
      return filled;
    }
    return allocated;
  }
}

/** Metadata a client cannot choose. */
const serverOwned = [
  'uid',
  'resourceVersion',
  'generation',
  'creationTimestamp',
  'deletionTimestamp',
  'deletionGracePeriodSeconds',
  'selfLink',
];

/** A kubelet registers its Node with its status; the CRD rules write their own. */
const keepsStatusOnCreate = new Set(['Node']);

function isErrorList(value: KubeObject | readonly FieldError[]): value is readonly FieldError[] {
  return Array.isArray(value);
}

function refuseAny(kind: KindInfo, object: KubeObject, errors: readonly FieldError[]): void {
  if (errors.length > 0) throw invalid(kind, object.metadata.name, errors);
}

function withoutStatus(object: KubeObject): KubeObject {
  return without(object, 'status') as KubeObject;
}

/** The store for code in the same process: the API's operations as plain function calls. */
import { badRequest, pathNotFound } from './api-error.ts';
import type { Core } from './core.ts';
import type { DeleteOptions, Deletion } from './deletion.ts';
import { textAt, type Json, type JsonObject } from './json.ts';
import type { KindInfo } from './kinds.ts';
import { listPage, readSelection, wholeList } from './list.ts';
import type { KubeObject } from './object.ts';
import type { ObjectRef, WriteOptions } from './operations.ts';
import { patched, type PatchType } from './requested-patch.ts';
import { applyObject } from './server-side-apply.ts';
import { openWatch, type WatchEvent } from './watch.ts';

/** A kind by the names its objects carry. */
export interface KindName {
  readonly apiVersion: string;
  readonly kind: string;
}

/** One object; `namespace` is left out for cluster-scoped kinds. */
export interface ObjectName extends KindName {
  readonly namespace?: string;
  readonly name: string;
}

/** Objects of a kind: of one namespace, or of all. */
export interface ObjectsName extends KindName {
  readonly namespace?: string;
  readonly labelSelector?: string;
  readonly fieldSelector?: string;
}

export interface ListResult {
  readonly items: readonly KubeObject[];
  readonly resourceVersion: string;
}

/**
 * Every call is synchronous and sees and makes the same objects as requests over the network:
 * defaults, validation, allocation and watches included. All throw {@link ApiError}.
 */
export interface ApiAccess {
  create(object: JsonObject, options?: WriteOptions): KubeObject;
  /** Throws NotFound. */
  get(name: ObjectName): KubeObject;
  /** Undefined when there is no such object. */
  find(name: ObjectName): KubeObject | undefined;
  list(objects: ObjectsName): ListResult;
  /** Replaces an object, or with `subresource: 'status'` its status. */
  update(object: JsonObject, options?: WriteOptions): KubeObject;
  patch(
    name: ObjectName,
    type: Exclude<PatchType, 'apply'>,
    patch: Json,
    options?: WriteOptions,
  ): KubeObject;
  /** Server-side apply with force: creates the object or merges into it. */
  apply(
    object: JsonObject,
    options?: WriteOptions & { readonly fieldManager?: string },
  ): KubeObject;
  delete(name: ObjectName, options?: DeleteOptions): Deletion;
  /**
   * Calls `onEvent` with every object there is as ADDED, then with each change in its order, not
   * in the call that made it but right after. Returns how to end it.
   */
  watch(objects: ObjectsName, onEvent: (event: WatchEvent) => void): () => void;
}

/** In-process access to a server's objects. */
export function createAccess(core: Core): ApiAccess {
  const { operations, storage } = core;

  function kindOf({ apiVersion, kind }: KindName): KindInfo {
    const found = core.kinds.byKind(apiVersion, kind);
    if (found === undefined) throw pathNotFound();
    return found;
  }

  function refOf(name: ObjectName): ObjectRef {
    const kind = kindOf(name);
    return { kind, namespace: namespaceOf(kind, name.namespace), name: name.name };
  }

  return {
    create: (object, options) => {
      const { kind, namespace } = refOf(nameOf(object));
      return operations.create(kind, namespace, object, options);
    },
    get: (name) => operations.get(refOf(name)),
    find: (name) => operations.find(refOf(name)),
    list: (objects) => {
      const page = listPage(storage, selectionOf(objects), wholeList);
      return { items: page.items, resourceVersion: String(page.revision) };
    },
    update: (object, options) => core.update(refOf(nameOf(object)), object, options),
    patch: (name, type, patch, options) => {
      const ref = refOf(name);
      const draft = patched(ref.kind, operations.get(ref), type, patch);
      return core.update(ref, draft, options);
    },
    apply: (object, options) => {
      const manager = { fieldManager: 'in-process', force: true };
      return applyObject(core, refOf(nameOf(object)), object, { ...manager, ...options }).object;
    },
    delete: (name, options) => core.delete(refOf(name), options),
    watch: (objects, onEvent) => {
      let isOpen = true;
      const later = (event: WatchEvent): void =>
        queueMicrotask(() => {
          if (isOpen) onEvent(event);
        });
      const request = {
        start: { at: 'state' },
        marksStateEnd: false,
        allowBookmarks: false,
        timeoutSeconds: undefined,
      } as const;
      const watch = openWatch(storage, selectionOf(objects), request, later);
      for (const event of watch.before) later(event);
      return () => {
        isOpen = false;
        watch.close();
      };
    },
  };

  function selectionOf(objects: ObjectsName): ReturnType<typeof readSelection> {
    const query = new URLSearchParams();
    if (objects.labelSelector !== undefined) query.set('labelSelector', objects.labelSelector);
    if (objects.fieldSelector !== undefined) query.set('fieldSelector', objects.fieldSelector);
    return readSelection(kindOf(objects), objects.namespace ?? '', query);
  }
}

/** As kubectl: an object of a namespaced kind without a namespace is in `default`. */
function namespaceOf(kind: KindInfo, given: string | undefined): string {
  if (kind.namespaced) return given ?? 'default';
  if (given !== undefined) throw badRequest(`${kind.kind} has no namespace, got ${given}`);
  return '';
}

/** The name an object goes by. */
export function nameOf(object: JsonObject): ObjectName {
  const namespace = textAt(object, 'metadata', 'namespace');
  return {
    apiVersion: textAt(object, 'apiVersion'),
    kind: textAt(object, 'kind'),
    name: textAt(object, 'metadata', 'name'),
    ...(namespace === '' ? {} : { namespace }),
  };
}

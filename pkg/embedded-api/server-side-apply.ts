/** Server-side apply: create what is not there, merge into what is. */
import { badRequest } from './api-error.ts';
import type { Core } from './core.ts';
import { without, type JsonObject } from './json.ts';
import { resourceOf } from './kinds.ts';
import type { KubeObject } from './object.ts';
import type { ObjectRef, WriteOptions } from './operations.ts';
import { mergePatch } from './patch-merge.ts';
import { strategicMergePatch } from './patch-strategic.ts';
import { isJsonObject } from './json.ts';

export interface ApplyOptions extends WriteOptions {
  readonly fieldManager: string;
  readonly force: boolean;
}

export interface Applied {
  readonly object: KubeObject;
  readonly isNew: boolean;
}

/** Applies a configuration. */
export function applyObject(
  core: Core,
  ref: ObjectRef,
  applied: JsonObject,
  options: ApplyOptions,
): Applied {
  const old = core.operations.find(ref);
  if (old === undefined) {
    const named = {
      ...applied,
      metadata: {
        name: ref.name,
        ...(isJsonObject(applied['metadata']) ? applied['metadata'] : {}),
      },
    };
    return { object: core.operations.create(ref.kind, ref.namespace, named, options), isNew: true };
  }
  const merged = ref.kind.custom
    ? mergePatch(old, applied)
    : strategicMergePatch(old, applied, resourceOf(ref.kind));
  if (!isJsonObject(merged)) throw badRequest('no object');
  return { object: core.update(ref, without(merged), options), isNew: false };
}

/** An API object as the server keeps it: JSON with the metadata every kind shares. */
import type { Json, JsonObject } from './json.ts';

/** `metadata` (k8s.io/apimachinery ObjectMeta), those fields the server itself reads or writes. */
export interface ObjectMeta extends JsonObject {
  readonly name: string;
  /** Absent for cluster-scoped kinds. */
  readonly namespace?: string;
  readonly generateName?: string;
  readonly uid: string;
  readonly resourceVersion: string;
  readonly generation?: number;
  /** RFC 3339, whole seconds. */
  readonly creationTimestamp: string;
  /** When the object goes, at the latest, once its finalizers are gone. */
  readonly deletionTimestamp?: string;
  readonly deletionGracePeriodSeconds?: number;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly finalizers?: readonly string[];
}

export interface KubeObject extends JsonObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: ObjectMeta;
}

/** An object on its way in: the server fills in the rest of the metadata. */
export interface DraftObject extends JsonObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: JsonObject & {
    readonly name?: string;
    readonly generateName?: string;
    readonly namespace?: string;
  };
}

/** "namespace/name", or "name" for cluster-scoped kinds: the order of lists. */
export function objectKey(namespace: string | undefined, name: string): string {
  return namespace === undefined || namespace === '' ? name : `${namespace}/${name}`;
}

/** "namespace/name", by which a kind's objects are told apart. */
export function keyOf(object: KubeObject): string {
  return objectKey(object.metadata.namespace, object.metadata.name);
}

/** The same object with some metadata fields replaced; undefined removes one. */
export function withMeta(
  object: KubeObject,
  changes: { readonly [key: string]: Json | undefined },
): KubeObject {
  const merged = Object.entries({ ...object.metadata, ...changes });
  const metadata = Object.fromEntries(merged.filter(([, value]) => value !== undefined));
  return { ...object, metadata: metadata as ObjectMeta };
}

/** Milliseconds as the API writes times: RFC 3339 in UTC, whole seconds. */
export function timestamp(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z');
}

/** Filling in what a client left out, without touching what it gave. */
import { isJsonObject, type Json, type JsonObject } from '#pkg/embedded-api/json.ts';

/** `object` with those of `defaults` it does not have; undefined defaults are left out. */
export function withAbsent(
  object: JsonObject,
  defaults: { readonly [key: string]: Json | undefined },
): JsonObject {
  const filled: Record<string, Json | undefined> = { ...object };
  for (const [key, value] of Object.entries(defaults)) {
    if (filled[key] === undefined && value !== undefined) filled[key] = value;
  }
  return filled;
}

/** Every object of a list changed by `change`; what is no object stays for validation to refuse. */
export function eachObject(
  list: readonly Json[],
  change: (item: JsonObject) => JsonObject,
): readonly Json[] {
  return list.map((item) => (isJsonObject(item) ? change(item) : item));
}

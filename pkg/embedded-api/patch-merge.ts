/** JSON merge patch (RFC 7386). */
import { define, isJsonObject, type Json } from './json.ts';

/** `target` with `patch` merged in: null removes a key, objects merge, all else replaces. */
export function mergePatch(target: Json | undefined, patch: Json): Json {
  if (!isJsonObject(patch)) return patch;
  const base = isJsonObject(target) ? target : {};
  const merged: Record<string, Json> = {};
  for (const [key, value] of Object.entries(base)) {
    if (value !== undefined && patch[key] !== null) define(merged, key, value);
  }
  for (const [key, value] of Object.entries(patch)) {
    if (value === null || value === undefined) continue;
    define(merged, key, mergePatch(Object.hasOwn(base, key) ? base[key] : undefined, value));
  }
  return merged;
}

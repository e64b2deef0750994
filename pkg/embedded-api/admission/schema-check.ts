/** Checks an object against its zod schema and words what is wrong as the API server does. */
import type * as z from 'zod';
import type { FieldError } from '#pkg/embedded-api/api-error.ts';
import { isJsonArray, valueAt, type Json, type JsonObject } from '#pkg/embedded-api/json.ts';
import { duplicate, invalidValue, required, unsupported } from './field-errors.ts';

/** The errors of `object` under `schema`; empty when it fits. */
export function schemaErrors(schema: z.ZodType, object: JsonObject): readonly FieldError[] {
  const result = schema.safeParse(object);
  return result.success ? [] : result.error.issues.map((issue) => toFieldError(issue, object));
}

function toFieldError(issue: z.core.$ZodIssue, object: JsonObject): FieldError {
  const field = fieldPath(issue.path);
  const value = valueOf(object, issue.path);
  if (issue.code === 'custom' && issue.params?.['duplicate'] === true) {
    return duplicate(field, value ?? null);
  }
  if (value === undefined) return required(field, issue.code === 'custom' ? issue.message : '');
  if (issue.code === 'invalid_value') return unsupported(field, value, issue.values.map(String));
  return invalidValue(field, value, issue.message);
}

/** `spec.ports[0].port`; keys that hold dots are bracketed: `metadata.labels[a.b/c]`. */
function fieldPath(path: readonly PropertyKey[]): string {
  return path.reduce<string>((text, key) => {
    if (typeof key === 'number') return `${text}[${key}]`;
    const name = String(key);
    if (/[./]/.test(name)) return `${text}[${name}]`;
    return text === '' ? name : `${text}.${name}`;
  }, '');
}

function valueOf(object: JsonObject, path: readonly PropertyKey[]): Json | undefined {
  let at: Json | undefined = object;
  for (const key of path) at = isJsonArray(at) ? at[Number(key)] : valueAt(at, String(key));
  return at;
}

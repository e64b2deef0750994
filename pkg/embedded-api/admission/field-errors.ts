/** Wording of field errors, as apimachinery's validation/field package words them. */
import type { FieldError } from '#pkg/embedded-api/api-error.ts';
import type { Json } from '#pkg/embedded-api/json.ts';

export function required(field: string, detail = ''): FieldError {
  const message = detail === '' ? 'Required value' : `Required value: ${detail}`;
  return { field, reason: 'FieldValueRequired', message };
}

export function invalidValue(field: string, value: Json | undefined, detail: string): FieldError {
  const shown = JSON.stringify(value ?? null);
  return { field, reason: 'FieldValueInvalid', message: `Invalid value: ${shown}: ${detail}` };
}

export function unsupported(
  field: string,
  value: Json | undefined,
  supported: readonly string[],
): FieldError {
  const list = supported.map((item) => JSON.stringify(item)).join(', ');
  const message = `Unsupported value: ${JSON.stringify(value ?? null)}: supported values: ${list}`;
  return { field, reason: 'FieldValueNotSupported', message };
}

export function duplicate(field: string, value: Json): FieldError {
  const message = `Duplicate value: ${JSON.stringify(value)}`;
  return { field, reason: 'FieldValueDuplicate', message };
}

export function forbiddenField(field: string, detail: string): FieldError {
  return { field, reason: 'FieldValueForbidden', message: `Forbidden: ${detail}` };
}

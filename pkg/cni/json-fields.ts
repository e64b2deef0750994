/**
 * Typed reading of a configuration's JSON. Unknown keys are never looked at: the specification
 * reserves them for others. A value of the wrong type names its field and what was expected.
 */
import { tryParseAddress, type Address } from '#pkg/ip/address.ts';
import { tryParsePrefix, type Prefix } from '#pkg/ip/prefix.ts';
import { CniError, cniCode } from './cni-error.ts';

/** A JSON object and where it stands in the document: "" for its top, "ipam.ranges[0][1]". */
export interface JsonFields {
  readonly values: Readonly<Record<string, unknown>>;
  readonly path: string;
}

/** `null` is absent: Go writes nil slices and pointers so, and the reference reads them so. */
function valueOf(fields: JsonFields, key: string): unknown {
  return fields.values[key] ?? undefined;
}

/** The name of a field as messages spell it. */
export function fieldName(fields: JsonFields, key: string): string {
  return fields.path === '' ? key : `${fields.path}.${key}`;
}

/** @throws {CniError} code 7, as all readers here */
export function readString(fields: JsonFields, key: string): string | undefined {
  const value = valueOf(fields, key);
  if (value === undefined || typeof value === 'string') return value;
  throw unexpected(fieldName(fields, key), 'a string', value);
}

/** @throws {CniError} code 7 */
export function readBoolean(fields: JsonFields, key: string): boolean | undefined {
  const value = valueOf(fields, key);
  if (value === undefined || typeof value === 'boolean') return value;
  throw unexpected(fieldName(fields, key), 'true or false', value);
}

/** A whole number within `range`. */
export function readInteger(
  fields: JsonFields,
  key: string,
  range: { readonly min: number; readonly max: number },
): number | undefined {
  const value = valueOf(fields, key);
  if (value === undefined) return undefined;
  if (Number.isInteger(value) && Number(value) >= range.min && Number(value) <= range.max) {
    return Number(value);
  }
  throw unexpected(
    fieldName(fields, key),
    `a whole number from ${range.min} to ${range.max}`,
    value,
  );
}

/** An object and where it stands, for fields of its own. */
export function readObject(fields: JsonFields, key: string): JsonFields | undefined {
  const value = valueOf(fields, key);
  return value === undefined ? undefined : fieldsOf(value, fieldName(fields, key));
}

/** An array of objects; absent is empty. */
export function readObjects(fields: JsonFields, key: string): readonly JsonFields[] {
  return readArray(fields, key).map((item, i) => fieldsOf(item, `${fieldName(fields, key)}[${i}]`));
}

/** An array of strings; absent is empty. */
export function readStrings(fields: JsonFields, key: string): readonly string[] {
  return readArray(fields, key).map((item, i) => {
    if (typeof item === 'string') return item;
    throw unexpected(`${fieldName(fields, key)}[${i}]`, 'a string', item);
  });
}

/** An array's raw items; absent is empty. */
export function readArray(fields: JsonFields, key: string): readonly unknown[] {
  const value = valueOf(fields, key);
  if (value === undefined) return [];
  if (Array.isArray(value)) return value;
  throw unexpected(fieldName(fields, key), 'an array', value);
}

/** An IP address; an empty string is absent, as Go's net.IP has it. */
export function readAddress(fields: JsonFields, key: string): Address | undefined {
  const text = readString(fields, key);
  if (text === undefined || text === '') return undefined;
  const address = tryParseAddress(text);
  if (address !== undefined) return address;
  throw unexpected(fieldName(fields, key), 'an IP address', text);
}

/** An address with a mask length; its host bits are kept. */
export function readPrefix(fields: JsonFields, key: string): Prefix | undefined {
  const text = readString(fields, key);
  if (text === undefined) return undefined;
  const prefix = tryParsePrefix(text);
  if (prefix !== undefined) return prefix;
  throw unexpected(fieldName(fields, key), 'address/length as 10.244.1.0/24', text);
}

/** A JSON value that must be an object. */
export function fieldsOf(value: unknown, path: string): JsonFields {
  if (isRecord(value)) return { values: value, path };
  throw unexpected(path, 'an object', value);
}

/** The error for a field whose value is not what `expected` says. */
export function unexpected(name: string, expected: string, value: unknown): CniError {
  const got = JSON.stringify(value) ?? 'nothing';
  return new CniError(
    cniCode.invalidConfig,
    `Cannot read configuration field "${name}": expected ${expected}, got ${got}`,
  );
}

/** The error for a field that must be there. */
export function missing(fields: JsonFields, key: string, expected: string): CniError {
  return unexpected(fieldName(fields, key), expected, valueOf(fields, key));
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

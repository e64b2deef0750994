/**
 * Reads Kubernetes' protobuf bodies. Only requests: answers are always JSON, which every client
 * accepts. A field that is not known is refused, not dropped.
 */
import { ApiError, badRequest } from '#pkg/embedded-api/api-error.ts';
import { isJsonObject, textAt, type Json, type JsonObject } from '#pkg/embedded-api/json.ts';
import { envelope, envelopeRaw, messages, type Field, type Message } from './protobuf-messages.ts';

export const protobufType = 'application/vnd.kubernetes.protobuf';

const magic = Buffer.from('k8s\0');

/**
 * The object in a protobuf body.
 *
 * @throws {ApiError} UnsupportedMediaType for a kind or field not known, BadRequest for no protobuf
 */
export function parseProtobuf(body: Buffer): JsonObject {
  if (!body.subarray(0, 4).equals(magic)) throw badRequest('the body is no Kubernetes protobuf');
  const content = body.subarray(4);
  const head = readMessage(content, envelope);
  const raw = rawFields(content).find(({ number }) => number === envelopeRaw)?.bytes;
  const apiVersion = textAt(head, 'typeMeta', 'apiVersion');
  const kind = textAt(head, 'typeMeta', 'kind');
  const message = messages.get(`${apiVersion} ${kind}`);
  if (message === undefined) throw unknown(`kind ${kind} of ${apiVersion}`);
  const object = readMessage(raw ?? Buffer.alloc(0), message);
  if (!isJsonObject(object)) throw badRequest('the body is no object');
  return { apiVersion, kind, ...object };
}

interface RawField {
  readonly number: number;
  /** Of a varint; 0 otherwise. */
  readonly value: number;
  /** Of a length-delimited field; undefined for a number. */
  readonly bytes: Buffer | undefined;
}

function readMessage(bytes: Buffer, message: Message): Json | undefined {
  const object: Record<string, Json> = {};
  for (const raw of rawFields(bytes)) {
    const field = message.fields.get(raw.number);
    if (field === undefined) {
      // Go writes zero values of fields that JSON leaves out.
      if (raw.value === 0 && (raw.bytes?.length ?? 0) === 0) continue;
      throw unknown(`field ${raw.number} of ${message.name}`);
    }
    addField(object, field, raw);
  }
  return message.toJson === undefined ? object : message.toJson(object);
}

function addField(object: Record<string, Json>, field: Field, raw: RawField): void {
  const { name, type } = field;
  if (type === 'map of bytes' || type === 'map of strings') {
    const [key = '', value = Buffer.alloc(0)] = mapEntry(raw.bytes);
    const before = object[name];
    const text = value.toString(type === 'map of bytes' ? 'base64' : 'utf8');
    object[name] = { ...(isJsonObject(before) ? before : {}), [key.toString()]: text };
    return;
  }
  const value = readValue(field, raw);
  if (value === undefined) return;
  const before = object[name];
  object[name] = field.isList === true ? [...(Array.isArray(before) ? before : []), value] : value;
}

/** Undefined for what JSON leaves out: empty texts, zero, false. */
function readValue({ type }: Field, raw: RawField): Json | undefined {
  switch (type) {
    case 'bool':
      return raw.value === 0 ? undefined : true;
    case 'int':
      return raw.value === 0 ? undefined : raw.value;
    case 'string':
      return raw.bytes === undefined || raw.bytes.length === 0 ? undefined : raw.bytes.toString();
    case 'ignored':
    case 'map of bytes':
    case 'map of strings':
      return undefined;
    default:
      return raw.bytes === undefined ? undefined : readMessage(raw.bytes, type);
  }
}

function mapEntry(bytes: Buffer | undefined): readonly (Buffer | undefined)[] {
  const fields = rawFields(bytes ?? Buffer.alloc(0));
  return [1, 2].map((number) => fields.find((field) => field.number === number)?.bytes);
}

/** The fields of a message, undecoded (protobuf.dev, "Encoding"). */
function rawFields(bytes: Buffer): readonly RawField[] {
  const fields: RawField[] = [];
  let at = 0;
  const varint = (): number => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++];
      if (byte === undefined || shift > 63n) throw badRequest('the protobuf body is cut short');
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return Number(BigInt.asIntN(64, value));
    }
  };
  const take = (length: number): Buffer => {
    if (length < 0 || at + length > bytes.length)
      throw badRequest('the protobuf body is cut short');
    at += length;
    return bytes.subarray(at - length, at);
  };
  while (at < bytes.length) {
    const tag = varint();
    const number = Math.floor(tag / 8);
    const wireType = tag % 8;
    if (wireType === 0) fields.push({ number, value: varint(), bytes: undefined });
    else if (wireType === 2) fields.push({ number, value: 0, bytes: take(varint()) });
    else throw unknown(`wire type ${wireType}`);
  }
  return fields;
}

function unknown(what: string): ApiError {
  return new ApiError({
    httpCode: 415,
    reason: 'UnsupportedMediaType',
    message: `Cannot read ${what} as protobuf: send it as JSON (kubectl apply -f, kubectl create -f)`,
  });
}

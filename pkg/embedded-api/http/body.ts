/** Bodies: JSON, YAML and some protobuf, one object each. */
import { parse } from 'yaml';
import { messageOf } from '#pkg/errors/agent-error.ts';
import { badRequest, unsupportedMediaType } from '#pkg/embedded-api/api-error.ts';
import { isJsonObject, type Json, type JsonObject } from '#pkg/embedded-api/json.ts';
import type { Exchange } from './exchange.ts';
import { parseProtobuf, protobufType } from './protobuf.ts';

const yamlTypes = new Set(['application/yaml', 'application/x-yaml', 'text/yaml']);

/**
 * The body as an object; a missing one is empty.
 *
 * @throws {ApiError} BadRequest, UnsupportedMediaType, RequestEntityTooLarge
 */
export async function readObject(exchange: Exchange): Promise<JsonObject> {
  const { mediaType } = exchange;
  if (mediaType === protobufType) return parseProtobuf(await exchange.readBytes());
  const isYaml = yamlTypes.has(mediaType);
  if (!isYaml && mediaType !== '' && mediaType !== 'application/json') {
    throw unsupportedMediaType(mediaType, ['application/json', 'application/yaml', protobufType]);
  }
  const text = await exchange.readBody();
  if (text === '') return {};
  const value = isYaml ? parseYaml(text) : parseJson(text);
  if (!isJsonObject(value)) throw badRequest('the body is no object');
  return value;
}

/**
 * The body of a patch: JSON, or YAML for server-side apply.
 *
 * @throws {ApiError} BadRequest, RequestEntityTooLarge
 */
export async function readPatch(exchange: Exchange): Promise<Json> {
  const text = await exchange.readBody();
  const isYaml = exchange.mediaType.endsWith('+yaml') && !text.startsWith('{');
  return isYaml ? parseYaml(text) : parseJson(text);
}

function parseJson(text: string): Json {
  try {
    return JSON.parse(text) as Json;
  } catch (error) {
    throw badRequest(`the body is no JSON: ${messageOf(error)}`);
  }
}

function parseYaml(text: string): Json {
  try {
    return parse(text) as Json;
  } catch (error) {
    throw badRequest(`the body is no YAML: ${messageOf(error)}`);
  }
}

/** Requests for objects and collections: each method of each path, as an operation. */
import { badRequest, invalid, methodNotAllowed } from '#pkg/embedded-api/api-error.ts';
import { readDeleteOptions, type Deletion } from '#pkg/embedded-api/deletion.ts';
import { asVersion } from '#pkg/embedded-api/draft.ts';
import { isJsonObject, textAt, type JsonObject } from '#pkg/embedded-api/json.ts';
import { listPage, readListRequest, readSelection, wholeList } from '#pkg/embedded-api/list.ts';
import type { KubeObject } from '#pkg/embedded-api/object.ts';
import type { WriteOptions } from '#pkg/embedded-api/operations.ts';
import { patched, patchTypeOf } from '#pkg/embedded-api/requested-patch.ts';
import { applyObject } from '#pkg/embedded-api/server-side-apply.ts';
import { isTrue, readWatchRequest } from '#pkg/embedded-api/watch.ts';
import { readObject, readPatch } from './body.ts';
import type { Exchange } from './exchange.ts';
import { sendList } from './list-response.ts';
import { represent, representationOf } from './representation.ts';
import type { ResourceTarget } from './target.ts';
import { sendWatch, type WatchSettings } from './watch-response.ts';

/** One request for a resource, and what answers it. */
export interface ResourceRequest {
  readonly exchange: Exchange;
  readonly target: ResourceTarget;
  readonly settings: WatchSettings;
}

/**
 * Answers a request for a resource.
 *
 * @throws {ApiError}
 */
export async function answerResource(request: ResourceRequest): Promise<void> {
  checkParameters(request.exchange.query);
  if (isWatchRequest(request.exchange, request.target)) await answerWatch(request);
  else if (request.target.name === '') await answerCollection(request);
  else await answerObject(request);
}

/** Whether a GET asks for a watch. */
export function isWatchRequest(exchange: Exchange, target: ResourceTarget): boolean {
  const isGet = exchange.method === 'GET';
  return isGet && target.subresource === '' && isTrue(exchange.query.get('watch'));
}

async function answerObject(request: ResourceRequest): Promise<void> {
  const { exchange, target, settings } = request;
  const { core } = settings;
  switch (exchange.method) {
    case 'GET':
    case 'HEAD':
      sendObject(request, core.operations.get(target));
      return;
    case 'PUT': {
      const draft = await readObject(exchange);
      requireVersion(target, draft);
      sendObject(request, core.update(target, draft, writeOptions(request)));
      return;
    }
    case 'PATCH':
      await answerPatch(request);
      return;
    case 'DELETE': {
      if (target.subresource !== '') throw methodNotAllowed();
      const options = readDeleteOptions(await readObject(exchange), exchange.query);
      sendDeletion(request, core.delete(target, options));
      return;
    }
    default:
      throw methodNotAllowed();
  }
}

async function answerCollection(request: ResourceRequest): Promise<void> {
  const { exchange, target, settings } = request;
  const { core } = settings;
  const { kind, namespace } = target;
  const isReading = exchange.method === 'GET' || exchange.method === 'HEAD';
  if (!isReading && kind.namespaced && namespace === '') throw methodNotAllowed();
  const selection = readSelection(kind, namespace, exchange.query);
  switch (exchange.method) {
    case 'GET':
    case 'HEAD': {
      const page = listPage(core.storage, selection, readListRequest(kind, exchange.query));
      await sendList(exchange, kind, page, core.clock.now());
      return;
    }
    case 'POST': {
      const draft = await readObject(exchange);
      const object = core.operations.create(kind, namespace, draft, writeOptions(request));
      sendObject(request, object, 201);
      return;
    }
    case 'DELETE': {
      const options = readDeleteOptions(await readObject(exchange), exchange.query);
      const page = listPage(core.storage, selection, wholeList);
      for (const { metadata } of page.items) {
        core.delete({ kind, namespace, name: metadata.name }, options);
      }
      await sendList(exchange, kind, page, core.clock.now());
      return;
    }
    default:
      throw methodNotAllowed();
  }
}

async function answerWatch({ exchange, target, settings }: ResourceRequest): Promise<void> {
  const { kind, namespace, name } = target;
  const selection = readSelection(kind, namespace, exchange.query, name);
  await sendWatch(exchange, selection, readWatchRequest(exchange.query), settings);
}

async function answerPatch(request: ResourceRequest): Promise<void> {
  const { exchange, target, settings } = request;
  const { core } = settings;
  const type = patchTypeOf(exchange.mediaType);
  const patch = await readPatch(exchange);
  const options = writeOptions(request);
  if (type !== 'apply') {
    const draft = patched(target.kind, core.operations.get(target), type, patch);
    sendObject(request, core.update(target, draft, options));
    return;
  }
  if (!isJsonObject(patch)) throw badRequest('the applied configuration is no object');
  const fieldManager = exchange.query.get('fieldManager') ?? '';
  if (fieldManager === '')
    throw badRequest('PatchOptions: fieldManager is required for apply patch');
  const force = isTrue(exchange.query.get('force'));
  const applied = applyObject(core, target, patch, { ...options, fieldManager, force });
  sendObject(request, applied.object, applied.isNew ? 201 : 200);
}

/** Parameters every request may carry; a wrong value is refused, not overlooked. */
function checkParameters(query: URLSearchParams): void {
  const dryRun = query.get('dryRun');
  if (dryRun !== null && dryRun !== 'All') {
    throw badRequest(`dryRun: expected All, got ${JSON.stringify(dryRun)}`);
  }
  const validation = query.get('fieldValidation') ?? '';
  if (!['', 'Ignore', 'Strict', 'Warn'].includes(validation)) {
    throw badRequest(
      `fieldValidation: expected Ignore, Warn or Strict, got ${JSON.stringify(validation)}`,
    );
  }
}

function writeOptions({ exchange, target }: ResourceRequest): WriteOptions {
  const dryRun = exchange.query.get('dryRun') === 'All';
  return target.subresource === 'status' ? { dryRun, subresource: 'status' } : { dryRun };
}

/** Built-in kinds may be replaced without a version; custom ones not, as in the real server. */
function requireVersion({ kind, name }: ResourceTarget, draft: JsonObject): void {
  if (!kind.custom || textAt(draft, 'metadata', 'resourceVersion') !== '') return;
  const field = 'metadata.resourceVersion';
  const message = 'Invalid value: 0: must be specified for an update';
  throw invalid(kind, name, [{ field, reason: 'FieldValueInvalid', message }]);
}

/** A Status for what is gone, the object for what still waits. */
function sendDeletion(request: ResourceRequest, deletion: Deletion): void {
  const { exchange, target } = request;
  if (!deletion.gone) {
    sendObject(request, deletion.object);
    return;
  }
  const { kind, name } = target;
  exchange.sendJson(200, {
    kind: 'Status',
    apiVersion: 'v1',
    metadata: {},
    status: 'Success',
    details: {
      name,
      ...(kind.group === '' ? {} : { group: kind.group }),
      kind: kind.plural,
      uid: deletion.object.metadata.uid,
    },
  });
}

function sendObject(request: ResourceRequest, object: KubeObject, httpCode = 200): void {
  const { exchange, target, settings } = request;
  const shown = asVersion(object, target.kind);
  const form = representationOf(exchange);
  exchange.sendJson(httpCode, represent(target.kind, shown, form, settings.core.clock.now()));
}

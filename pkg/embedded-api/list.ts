/** Lists: one consistent revision, in pages when asked for, of what the selectors select. */
import { badRequest, expired, invalid, revisionTooLarge, ApiError } from './api-error.ts';
import { asVersion } from './draft.ts';
import { isJsonObject, textAt, valueAt, type Json } from './json.ts';
import { resourceOf, type KindInfo } from './kinds.ts';
import type { KubeObject } from './object.ts';
import { bothSelect, parseFieldSelector, parseLabelSelector, type Selector } from './selectors.ts';
import { firstNotLess, type Snapshot, type Storage } from './storage.ts';

/** Which objects a list, watch or deletecollection is about. */
export interface Selection {
  readonly kind: KindInfo;
  /** Empty = all namespaces. */
  readonly namespace: string;
  readonly selector: Selector;
  readonly hasSelector: boolean;
}

export interface ListRequest {
  /** 0 = everything at once. */
  readonly limit: number;
  /** Token of the page before; empty = the first page. */
  readonly continueToken: string;
  /** Empty = the latest; '0' = any. */
  readonly resourceVersion: string;
  readonly resourceVersionMatch: '' | 'Exact' | 'NotOlderThan';
}

export interface ListPage {
  readonly revision: number;
  readonly items: readonly KubeObject[];
  /** Empty on the last page. */
  readonly continueToken: string;
  /** Undefined where it is not known: with selectors, and on the last page. */
  readonly remainingItemCount: number | undefined;
}

/** Everything, as a list without parameters asks for it. */
export const wholeList: ListRequest = {
  limit: 0,
  continueToken: '',
  resourceVersion: '',
  resourceVersionMatch: '',
};

/**
 * One page of the list.
 *
 * @throws {ApiError} Expired when the revision is compacted, Timeout for one still to come,
 * BadRequest for a token that is none
 */
export function listPage(storage: Storage, selection: Selection, request: ListRequest): ListPage {
  const start = startOf(storage, selection, request);
  const { entries, revision } = start.snapshot;
  // kube-apiserver answers resourceVersion=0 from its cache, whole, whatever the limit.
  const limit = request.resourceVersion === '0' ? 0 : request.limit;
  const items: KubeObject[] = [];
  const keys = entries.map(([key]) => key);
  let at = firstNotLess(keys, start.key);
  for (; at < entries.length && (limit === 0 || items.length < limit); at++) {
    const object = entries[at]?.[1];
    if (object === undefined || !selection.selector(object)) continue;
    items.push(asVersion(object, selection.kind));
  }
  const next = entries.findIndex(([, object], i) => i >= at && selection.selector(object));
  const nextKey = next < 0 ? undefined : keys[next];
  if (nextKey === undefined) {
    return { revision, items, continueToken: '', remainingItemCount: undefined };
  }
  return {
    revision,
    items,
    continueToken: writeToken({ revision, key: nextKey }),
    remainingItemCount: selection.hasSelector ? undefined : entries.length - next,
  };
}

/**
 * The selection of a request's query.
 *
 * @throws {ApiError} BadRequest
 */
export function readSelection(
  kind: KindInfo,
  namespace: string,
  query: URLSearchParams,
  name = '',
): Selection {
  const labels = query.get('labelSelector') ?? '';
  const fields = query.get('fieldSelector') ?? '';
  const selected = bothSelect(
    parseLabelSelector(labels),
    parseFieldSelector(fields, kind.selectableFields),
  );
  const selector: Selector =
    name === '' ? selected : bothSelect(selected, (object) => object.metadata.name === name);
  return { kind, namespace, selector, hasSelector: `${labels}${fields}${name}` !== '' };
}

/**
 * The list parameters of a query.
 *
 * @throws {ApiError} BadRequest, Invalid
 */
export function readListRequest(kind: KindInfo, query: URLSearchParams): ListRequest {
  const limit = Number(query.get('limit') ?? '0');
  const resourceVersion = query.get('resourceVersion') ?? '';
  const match = query.get('resourceVersionMatch') ?? '';
  if (!Number.isInteger(limit) || limit < 0) throw badRequest(`limit: expected a whole number`);
  if (match !== '' && match !== 'Exact' && match !== 'NotOlderThan') {
    throw refuseParameter(
      kind,
      `Unsupported value: ${JSON.stringify(match)}: supported values: "Exact", "NotOlderThan"`,
    );
  }
  if (match !== '' && resourceVersion === '') {
    throw refuseParameter(
      kind,
      'Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided',
    );
  }
  if (match === 'Exact' && resourceVersion === '0') {
    throw refuseParameter(
      kind,
      'Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"',
    );
  }
  readRevision(resourceVersion);
  return {
    limit,
    continueToken: query.get('continue') ?? '',
    resourceVersion,
    resourceVersionMatch: match,
  };
}

/**
 * A resourceVersion as a number; 0 for '' and '0'.
 *
 * @throws {ApiError} BadRequest
 */
export function readRevision(text: string): number {
  if (!/^\d{0,16}$/.test(text)) {
    throw badRequest(`invalid resource version ${JSON.stringify(text)}: expected a number`);
  }
  return Number(text);
}

interface Start {
  readonly snapshot: Snapshot;
  /** First key of the page. */
  readonly key: string;
}

function startOf(storage: Storage, selection: Selection, request: ListRequest): Start {
  const resource = resourceOf(selection.kind);
  const prefix = selection.namespace === '' ? '' : `${selection.namespace}/`;
  if (request.continueToken !== '') {
    const token = readToken(request.continueToken);
    const revision = token.revision < 0 ? storage.revision : token.revision;
    try {
      return { snapshot: storage.snapshot(resource, prefix, revision), key: token.key };
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== 'Expired') throw error;
      // A token without a revision goes on at the latest: inconsistent, but it goes on.
      throw expired(continueExpired, writeToken({ revision: -1, key: token.key }));
    }
  }
  const wanted = readRevision(request.resourceVersion);
  if (wanted > storage.revision) throw revisionTooLarge(wanted, storage.revision);
  const isExact =
    request.resourceVersionMatch === 'Exact' ||
    // The oldest rule of the API: a version with a limit, and nothing said, is that version.
    (request.resourceVersionMatch === '' && request.limit > 0 && wanted > 0);
  const revision = isExact ? wanted : storage.revision;
  return { snapshot: storage.snapshot(resource, prefix, revision), key: '' };
}

const continueExpired =
  'The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.';

interface Token {
  /** -1 = the latest. */
  readonly revision: number;
  readonly key: string;
}

function writeToken(token: Token): string {
  const json = JSON.stringify({ v: 'meta.k8s.io/v1', rv: token.revision, start: token.key });
  return Buffer.from(json).toString('base64url');
}

function readToken(text: string): Token {
  const token = parseJson(Buffer.from(text, 'base64url').toString());
  const revision = valueAt(token, 'rv');
  if (!isJsonObject(token) || typeof revision !== 'number') {
    throw badRequest('continue key is not valid: expected a token of this server');
  }
  return { revision, key: textAt(token, 'start') };
}

function parseJson(text: string): Json | undefined {
  try {
    return JSON.parse(text) as Json;
  } catch {
    return undefined;
  }
}

function refuseParameter(kind: KindInfo, message: string): ApiError {
  const field = 'resourceVersionMatch';
  const subject = { ...kind, group: 'meta.k8s.io', kind: 'ListOptions' };
  return invalid(subject, '', [{ field, reason: 'FieldValueForbidden', message }]);
}

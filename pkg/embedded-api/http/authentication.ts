/** Who asks, by bearer token, and whether they may (RBAC rules as data). */
import { createHash, timingSafeEqual } from 'node:crypto';
import { forbidden, qualified, unauthorized } from '#pkg/embedded-api/api-error.ts';
import type { ResourceTarget } from './target.ts';

/** `rbac.authorization.k8s.io/v1 PolicyRule`: as written in a ClusterRole. */
export interface PolicyRule {
  readonly apiGroups?: readonly string[];
  readonly resources?: readonly string[];
  readonly resourceNames?: readonly string[];
  readonly nonResourceURLs?: readonly string[];
  readonly verbs: readonly string[];
}

/** A bearer token the server knows. */
export interface TokenGrant {
  readonly token: string;
  /** The name refusals call its owner by. */
  readonly user: string;
  /** What its owner may do; undefined = everything. */
  readonly rules?: readonly PolicyRule[];
}

/**
 * The grant of an Authorization header. Without any tokens everyone may do everything.
 *
 * @throws {ApiError} Unauthorized
 */
export function authenticate(
  header: string,
  tokens: readonly TokenGrant[],
): TokenGrant | undefined {
  if (tokens.length === 0) return undefined;
  const given = digest(/^Bearer +(?<token>\S+)$/i.exec(header)?.groups?.['token'] ?? '');
  const grant = tokens.find(({ token }) => timingSafeEqual(digest(token), given));
  if (grant === undefined) throw unauthorized();
  return grant;
}

/** Verb, and what it is done to: a resource or another path. */
export interface Attempt {
  readonly verb: string;
  readonly target: ResourceTarget | string;
}

/** @throws {ApiError} Forbidden */
export function authorize(grant: TokenGrant | undefined, attempt: Attempt): void {
  if (grant?.rules === undefined) return;
  if (grant.rules.some((rule) => permits(rule, attempt))) return;
  const { verb, target } = attempt;
  if (typeof target === 'string') {
    throw forbidden(`forbidden: User "${grant.user}" cannot ${verb} path "${target}"`);
  }
  const { kind, name, namespace } = target;
  const subject = name === '' ? qualified(kind) : `${qualified(kind)} "${name}"`;
  const scope = namespace === '' ? 'at the cluster scope' : `in the namespace "${namespace}"`;
  throw forbidden(
    `${subject} is forbidden: User "${grant.user}" cannot ${verb} resource "${resourceName(target)}" in API group "${kind.group}" ${scope}`,
    { name, group: kind.group, kind: kind.plural },
  );
}

/** The RBAC verb of a request. */
export function verbOf(method: string, target: ResourceTarget, isWatch: boolean): string {
  switch (method) {
    case 'POST':
      return 'create';
    case 'PUT':
      return 'update';
    case 'PATCH':
      return 'patch';
    case 'DELETE':
      return target.name === '' ? 'deletecollection' : 'delete';
    default:
      if (isWatch) return 'watch';
      return target.name === '' ? 'list' : 'get';
  }
}

function permits(rule: PolicyRule, { verb, target }: Attempt): boolean {
  if (!has(rule.verbs, verb)) return false;
  if (typeof target === 'string') {
    const urls = rule.nonResourceURLs ?? [];
    return urls.some((url) =>
      url.endsWith('*') ? target.startsWith(url.slice(0, -1)) : url === target,
    );
  }
  const names = rule.resourceNames ?? [];
  return (
    has(rule.apiGroups ?? [], target.kind.group) &&
    has(rule.resources ?? [], resourceName(target)) &&
    (names.length === 0 || names.includes(target.name))
  );
}

function has(list: readonly string[], item: string): boolean {
  return list.includes(item) || list.includes('*');
}

/** "nodes", or "nodes/status". */
function resourceName({ kind, subresource }: ResourceTarget): string {
  return subresource === '' ? kind.plural : `${kind.plural}/${subresource}`;
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

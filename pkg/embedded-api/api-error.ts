/** Refusals as the API writes them: a Status object (k8s.io/apimachinery meta/v1 Status). */
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { JsonObject } from './json.ts';

/** One thing wrong with one field of an object. */
export interface FieldError {
  /** As the API writes paths: `spec.ports[0].port`. */
  readonly field: string;
  readonly reason:
    | 'FieldValueRequired'
    | 'FieldValueInvalid'
    | 'FieldValueNotSupported'
    | 'FieldValueDuplicate'
    | 'FieldValueForbidden'
    | 'FieldManagerConflict';
  readonly message: string;
}

interface Refusal {
  readonly httpCode: number;
  readonly reason: string;
  readonly message: string;
  readonly details?: JsonObject;
  /** Status `metadata`, where a 410 on a list puts its fresh `continue` token. */
  readonly metadata?: JsonObject;
}

/** A request the server refuses. `code` is the Status reason: NotFound, Conflict, Expired, … */
export class ApiError extends AgentError {
  readonly refusal: Refusal;

  constructor(refusal: Refusal) {
    super(refusal.reason, refusal.message);
    this.refusal = refusal;
  }

  get httpCode(): number {
    return this.refusal.httpCode;
  }

  /** The Status object of the answer. */
  get status(): JsonObject {
    const { httpCode, reason, message, details, metadata } = this.refusal;
    return {
      kind: 'Status',
      apiVersion: 'v1',
      metadata: metadata ?? {},
      status: 'Failure',
      message,
      reason,
      ...(details === undefined ? {} : { details }),
      code: httpCode,
    };
  }

  /** Seconds after which the client may try again; undefined = it need not. */
  get retryAfterSeconds(): number | undefined {
    const seconds = this.refusal.details?.['retryAfterSeconds'];
    return typeof seconds === 'number' ? seconds : undefined;
  }
}

/** What a refusal is about; `resource` as in "services" or "widgets.example.com". */
export interface Subject {
  readonly group: string;
  readonly plural: string;
  readonly kind: string;
}

export function notFound(subject: Subject, name: string): ApiError {
  return refuse(404, 'NotFound', `${qualified(subject)} "${name}" not found`, {
    ...about(subject, name),
  });
}

/** The path itself is unknown. The message is the real server's, which kubectl shows as is. */
export function pathNotFound(): ApiError {
  return refuse(404, 'NotFound', 'the server could not find the requested resource', {});
}

export function alreadyExists(subject: Subject, name: string): ApiError {
  const message = `${qualified(subject)} "${name}" already exists`;
  return refuse(409, 'AlreadyExists', message, about(subject, name));
}

export function conflict(subject: Subject, name: string, why: string): ApiError {
  const message = `Operation cannot be fulfilled on ${qualified(subject)} "${name}": ${why}`;
  return refuse(409, 'Conflict', message, about(subject, name));
}

/** Two field managers want different values for the same fields (server-side apply). */
export function applyConflict(causes: readonly FieldError[]): ApiError {
  const noun = causes.length === 1 ? 'conflict' : 'conflicts';
  const list = causes.map((cause) => `${cause.message}: ${cause.field}`).join('\n');
  const message = `Apply failed with ${causes.length} ${noun}: ${list}`;
  return refuse(409, 'Conflict', message, { causes: causes.map((cause) => ({ ...cause })) });
}

export function invalid(subject: Subject, name: string, errors: readonly FieldError[]): ApiError {
  const lines = errors.map((error) => `${error.field}: ${error.message}`);
  const list = lines.length === 1 ? lines[0] : `[${lines.join(', ')}]`;
  const kind = subject.group === '' ? subject.kind : `${subject.kind}.${subject.group}`;
  return refuse(422, 'Invalid', `${kind} "${name}" is invalid: ${list}`, {
    name,
    ...(subject.group === '' ? {} : { group: subject.group }),
    kind: subject.kind,
    causes: errors.map((error) => ({ ...error })),
  });
}

export function badRequest(message: string): ApiError {
  return refuse(400, 'BadRequest', message);
}

export function unauthorized(): ApiError {
  return refuse(401, 'Unauthorized', 'Unauthorized');
}

export function forbidden(message: string, details?: JsonObject): ApiError {
  return refuse(403, 'Forbidden', message, details);
}

export function methodNotAllowed(): ApiError {
  const message = 'the server does not allow this method on the requested resource';
  return refuse(405, 'MethodNotAllowed', message);
}

/** The revision asked for is no longer known (or, in a watch, was compacted meanwhile). */
export function expired(message: string, freshContinue?: string): ApiError {
  const refusal = { httpCode: 410, reason: 'Expired', message };
  return new ApiError(
    freshContinue === undefined
      ? refusal
      : { ...refusal, metadata: { continue: freshContinue, resourceVersion: '' } },
  );
}

export function bodyTooLarge(limitBytes: number): ApiError {
  const message = `the body is larger than ${limitBytes} bytes`;
  return refuse(413, 'RequestEntityTooLarge', message);
}

export function unsupportedMediaType(type: string, supported: readonly string[]): ApiError {
  const message = `the body of the request was in an unknown format - accepted media types include: ${supported.join(', ')} (got ${JSON.stringify(type)})`;
  return refuse(415, 'UnsupportedMediaType', message);
}

/** The client asks for a revision that is still to come; client-go asks again, then without one. */
export function revisionTooLarge(wanted: number, current: number): ApiError {
  return refuse(504, 'Timeout', `Too large resource version: ${wanted}, current: ${current}`, {
    causes: [{ reason: 'ResourceVersionTooLarge', message: 'Too large resource version' }],
    retryAfterSeconds: 1,
  });
}

/** "services", or "endpointslices.discovery.k8s.io". */
export function qualified(subject: Pick<Subject, 'group' | 'plural'>): string {
  return subject.group === '' ? subject.plural : `${subject.plural}.${subject.group}`;
}

function about(subject: Subject, name: string): JsonObject {
  return {
    name,
    ...(subject.group === '' ? {} : { group: subject.group }),
    kind: subject.plural,
  };
}

function refuse(httpCode: number, reason: string, message: string, details?: JsonObject): ApiError {
  return new ApiError({ httpCode, reason, message, ...(details === undefined ? {} : { details }) });
}

/** What a Kubernetes API server says when it refuses: the `Status` object, as an error. */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { z } from 'zod';

export interface StatusCause {
  readonly reason: string;
  readonly message: string;
  readonly field: string;
}

/**
 * The server answered, and the answer is a refusal. `code` is the Status reason ("NotFound",
 * "Expired"), or "Http503" where the answer carried none (a proxy, a load balancer).
 */
export class ApiError extends AgentError {
  /** The HTTP status, or the Status object's code inside a watch. */
  readonly status: number;
  readonly causes: readonly StatusCause[];
  /** How long the server asked us to wait; undefined when it did not. */
  readonly retryAfterMs: number | undefined;

  constructor(what: string, answer: StatusAnswer) {
    const reason = answer.reason === '' ? `Http${answer.status}` : answer.reason;
    super(reason, `Cannot ${what}: the server answered ${answer.status} ${answer.message}`, {
      details: { status: answer.status, reason: answer.reason, causes: answer.causes },
    });
    this.status = answer.status;
    this.causes = answer.causes;
    this.retryAfterMs = answer.retryAfterMs;
  }
}

export interface StatusAnswer {
  readonly status: number;
  readonly reason: string;
  readonly message: string;
  readonly causes: readonly StatusCause[];
  readonly retryAfterMs: number | undefined;
}

const statusSchema = z.object({
  code: z.number().catch(0),
  reason: z.string().catch(''),
  message: z.string().catch(''),
  details: z
    .object({
      retryAfterSeconds: z.number().optional().catch(undefined),
      causes: z
        .array(
          z.object({
            reason: z.string().catch(''),
            message: z.string().catch(''),
            field: z.string().catch(''),
          }),
        )
        .catch([]),
    })
    .catch({ causes: [] }),
});

/**
 * Reads a refusal: the body is a metav1.Status from the API server, or any text from something in
 * between. `retryAfterHeader` is in seconds (RFC 9110 §10.2.3; its date form is not used by API
 * servers and counts as absent).
 */
export function readStatus(
  httpStatus: number,
  body: unknown,
  retryAfterHeader?: string,
): StatusAnswer {
  const headerMs = secondsToMs(Number(retryAfterHeader ?? Number.NaN));
  const parsed = statusSchema.safeParse(body);
  if (!parsed.success) {
    const text = typeof body === 'string' ? body.trim().slice(0, 500) : '';
    return {
      status: httpStatus,
      reason: '',
      message: text === '' ? '(no message)' : `"${text}"`,
      causes: [],
      retryAfterMs: headerMs,
    };
  }
  const { code, reason, message, details } = parsed.data;
  const status = httpStatus === 200 ? code : httpStatus;
  return {
    status,
    reason,
    message: [reason, message].filter((part) => part !== '').join(': ') || '(no message)',
    causes: details.causes,
    retryAfterMs: headerMs ?? secondsToMs(details.retryAfterSeconds ?? Number.NaN),
  };
}

function secondsToMs(seconds: number): number | undefined {
  return Number.isFinite(seconds) && seconds > 0 ? seconds * 1000 : undefined;
}

/** Whether the error, or what caused it, is a refusal with this HTTP status. */
export function isApiStatus(error: unknown, status: number): boolean {
  return apiErrorIn(error)?.status === status;
}

/** The server's refusal in a chain of causes, if there is one. */
export function apiErrorIn(error: unknown): ApiError | undefined {
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    if (at instanceof ApiError) return at;
  }
  return undefined;
}

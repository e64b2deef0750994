/**
 * The errors a CNI plugin answers with: a number from the specification ("Error", CNI spec 1.1.0),
 * a message, and details. A runtime acts on the number, people read the rest.
 */
import { AgentError, messageOf } from '#pkg/errors/agent-error.ts';

/** Numbers of the specification that we answer with; 1–99 are reserved, 100 and above a plugin's own. */
export const cniCode = {
  incompatibleVersion: 1,
  invalidEnvironment: 4,
  io: 5,
  decode: 6,
  invalidConfig: 7,
  invalidNetns: 8,
  tryAgainLater: 11,
  notAvailable: 50,
  notAvailableConnectivityLimited: 51,
  /** What the reference library answers for an error without a number of its own. */
  internal: 999,
} as const;

/** An error with a number of the specification. */
export class CniError extends AgentError {
  readonly cniCode: number;
  /** The document's `details`: one line that helps, beside the message. */
  readonly hint: string | undefined;

  constructor(
    number: number,
    message: string,
    options: { readonly cause?: unknown; readonly hint?: string | undefined } = {},
  ) {
    super(`CniError${number}`, message, options);
    this.cniCode = number;
    this.hint = options.hint;
  }
}

/** The error document for standard output, in the configuration's version when that is known. */
export interface CniErrorDocument {
  readonly cniVersion: string;
  readonly code: number;
  readonly msg: string;
  readonly details?: string;
}

/**
 * Describes anything thrown; what carries no number is code 999. Of a failure whose undoing failed
 * too, the failure is what counts, and the rest a detail.
 */
export function cniErrorDocument(error: unknown, cniVersion: string): CniErrorDocument {
  if (error instanceof SuppressedError) {
    const document = cniErrorDocument(error.suppressed, cniVersion);
    const undoing = `undoing it failed: ${messageOf(error.error)}`;
    const { details } = document;
    return { ...document, details: details === undefined ? undoing : `${details}; ${undoing}` };
  }
  if (!(error instanceof CniError)) {
    return { cniVersion, code: cniCode.internal, msg: messageOf(error) };
  }
  const causes = error.cause === undefined ? [] : [messageOf(error.cause)];
  const details = [...(error.hint === undefined ? [] : [error.hint]), ...causes].join(': ');
  return {
    cniVersion,
    code: error.cniCode,
    msg: error.message,
    ...(details === '' ? {} : { details }),
  };
}

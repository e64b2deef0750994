/**
 * The one error class for failures the product foresees. `code` is stable and for programs,
 * the message is for people ("Cannot <verb> <object>: <state>"), `details` is data for logs.
 */
export class AgentError extends Error {
  readonly code: string;
  readonly details: Readonly<Record<string, unknown>> | undefined;

  constructor(
    code: string,
    message: string,
    options: {
      readonly cause?: unknown;
      readonly details?: Readonly<Record<string, unknown>>;
    } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = new.target.name;
    this.code = code;
    this.details = options.details;
  }
}

/**
 * Whether `error`, or an error it was caused by, carries this code: an errno name ('EEXIST') from
 * the kernel or Node, or one of our own codes. Recognise errors with this, never by their text.
 */
export function isErrno(error: unknown, code: string): boolean {
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    if ('code' in at && at.code === code) return true;
  }
  return false;
}

/** The message of anything thrown, with the messages of its causes: one line for people. */
export function messageOf(error: unknown): string {
  const parts: string[] = [];
  for (let at: unknown = error; at !== undefined && at !== null;) {
    if (!(at instanceof Error)) {
      parts.push(typeof at === 'string' ? at : JSON.stringify(at));
      break;
    }
    const inner = at instanceof AggregateError ? ` (${at.errors.map(messageOf).join('; ')})` : '';
    parts.push(at.message + inner);
    at = at.cause;
  }
  return parts.join(': ');
}

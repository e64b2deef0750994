/** JSON lines on stderr for the daemons: fields first, then a constant message. */
import { pino } from 'pino';

/** The calls our code makes; pino's shape, so that tests can pass their own. */
export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

/** A logger whose level can change while it runs. */
export interface AdjustableLogger extends Logger {
  level: string;
}

/**
 * A logger that writes each line before it returns: the last line before a crash is the one that
 * matters, and pino's asynchronous destinations lose it.
 */
export function createLogger(name: string, level: LogLevel = 'info'): AdjustableLogger {
  return pino(
    {
      name,
      level,
      base: { name },
      timestamp: pino.stdTimeFunctions.isoTime,
      serializers: { err: serializeError },
    },
    pino.destination({ fd: 2, sync: true }),
  );
}

/** A logger that says nothing. */
export const silentLogger: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

/** `cause` and `AggregateError.errors` are not enumerable: without this, JSON loses them. */
export function serializeError(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  return {
    type: error.name,
    message: error.message,
    ...('code' in error ? { code: error.code } : {}),
    ...('details' in error && error.details !== undefined ? { details: error.details } : {}),
    ...(error instanceof AggregateError ? { errors: error.errors.map(serializeError) } : {}),
    ...(error.cause === undefined ? {} : { cause: serializeError(error.cause) }),
    stack: error.stack,
  };
}

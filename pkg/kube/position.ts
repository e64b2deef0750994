/** Where a list+watch stands, and where a failure puts it. Pure: the rules, without the requests. */
import { isErrno } from '#pkg/errors/agent-error.ts';
import { apiErrorIn } from './api-error.ts';
import type { WatchProgress } from './watch-request.ts';

export type Position = ListPosition | WatchPosition;

export interface ListPosition {
  readonly state: 'list';
  /** Not older than this; "0" = whatever the server has; undefined = the newest (quorum read). */
  readonly resourceVersion: string | undefined;
  /** How often in a row the server said that this version is ahead of it. */
  readonly tooLarge: number;
}

export interface WatchPosition {
  readonly state: 'watch';
  /** All up to here has been applied. */
  readonly resourceVersion: string;
  /** Watches in a row that opened and then brought nothing at all. */
  readonly silent: number;
}

/** A server that lags behind catches up in seconds; one that lost its data never does. */
const maxTooLarge = 3;
const maxSilent = 2;

/** After a failed list, or a watch that failed before its initial events were complete. */
export function afterListError(position: Position, error: unknown): Position {
  if (position.state === 'watch') return position;
  const newest: ListPosition = { state: 'list', resourceVersion: undefined, tooLarge: 0 };
  if (isGone(error)) return newest;
  if (isTooLarge(error)) {
    const tooLarge = position.tooLarge + 1;
    return tooLarge >= maxTooLarge ? newest : { ...position, tooLarge };
  }
  return position;
}

/** After a watch that failed, wherever it had got to: `position` is what had been applied by then. */
export function afterWatchError(
  position: WatchPosition,
  error: unknown,
  progress: WatchProgress,
): Position {
  const relist: ListPosition = {
    state: 'list',
    resourceVersion: position.resourceVersion,
    tooLarge: 0,
  };
  // 400 and 422: the server cannot read our version; it is not the one that gave it.
  const status = apiErrorIn(error)?.status;
  if (isGone(error) || status === 400 || status === 422) return relist;
  const silent =
    progress.openedAtMs !== undefined && progress.bytes === 0 && isErrno(error, 'Idle')
      ? position.silent + 1
      : 0;
  return silent >= maxSilent ? relist : { ...position, silent };
}

/**
 * The server does not stream lists: it does not know the parameters, has the feature off (422), or
 * its etcd cannot (ERROR 500 in the stream); or it takes them for a plain watch and stays silent.
 */
export function isWatchListRefusal(error: unknown, progress: WatchProgress): boolean {
  const status = apiErrorIn(error)?.status;
  if (status === undefined) return progress.openedAtMs !== undefined && isErrno(error, 'Idle');
  return [400, 403, 422, 500].includes(status);
}

function isGone(error: unknown): boolean {
  return apiErrorIn(error)?.status === 410 || isErrno(error, 'Expired') || isErrno(error, 'Gone');
}

function isTooLarge(error: unknown): boolean {
  const refusal = apiErrorIn(error);
  return (
    refusal?.status === 504 &&
    refusal.causes.some((cause) => cause.reason === 'ResourceVersionTooLarge')
  );
}

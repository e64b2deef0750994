/** What stays for a while though nobody wants it any more. Pure. */
import { isDevice, type Device } from './device.ts';
import { objectLink, type HostObject } from './object.ts';

export interface SplitObjects {
  /** Stays as it is: plan as if it was not there. */
  readonly retained: readonly HostObject[];
  readonly others: readonly HostObject[];
}

/**
 * Sets aside the devices of these kinds that are not wanted, with all that is on them but routes:
 * a device that has to go on receiving sends nothing any more.
 */
export function splitRetained(
  want: readonly HostObject[],
  have: readonly HostObject[],
  kinds: ReadonlySet<Device['kind']>,
): SplitObjects {
  if (kinds.size === 0) return { retained: [], others: have };
  const wanted = new Set(want.filter(isDevice).map(({ link }) => link));
  const links = new Set(
    have
      .filter(isDevice)
      .filter(({ kind, link }) => kinds.has(kind) && !wanted.has(link))
      .map(({ link }) => link),
  );
  const stays = (object: HostObject): boolean =>
    object.kind !== 'route' && object.kind !== 'sysctl' && links.has(objectLink(object) ?? '');
  return {
    retained: have.filter(stays),
    others: have.filter((object) => !stays(object)),
  };
}

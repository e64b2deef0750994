/** What an attachment's file is called, where a directory has one for each. */
import type { Attachment } from './environment.ts';
import { shortHash } from './short-hash.ts';

/** ":" is in no container ID and no interface name. A file name ends at 255 bytes, an ID nowhere. */
export function attachmentFileName({ containerId, ifName }: Attachment): string {
  const id =
    containerId.length <= 200
      ? containerId
      : `${containerId.slice(0, 180)}:${shortHash(containerId)}`;
  return `${id}:${ifName}`;
}

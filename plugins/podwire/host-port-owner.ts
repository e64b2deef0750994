/** Who has a host port: one pod, also where the kernel's maps would take two. */
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { makeDirectory } from '#pkg/files/make-directory.ts';
import { formatAddress } from '#pkg/ip/address.ts';
import { CniError } from '#pkg/cni/cni-error.ts';
import { getElements, listElements, type ElementChange } from '#pkg/nfnetlink/nf-tables.ts';
import type { SetElement } from '#pkg/nfnetlink/set-element.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { LOCK_EX } from '#pkg/sys/constants.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { hostPortTaken } from '#plugins/meta/host-port-claim.ts';
import type { AttachmentRecord } from './attachment-record.ts';
import {
  hostPortKey,
  hostPortMaps,
  hostPortSet,
  ownerComment,
  specificAddress,
  type HostPortElement,
} from './pod-elements.ts';

interface PortTable {
  readonly socket: NetlinkSocket;
}

interface PortLock {
  readonly sys: Sys;
  /** Where the lock's file may be. */
  readonly directory: string;
}

/**
 * A port for all of the host's addresses and one for a single address are different keys, in
 * different maps, and yet one port: the kernel cannot see that. Call it with the lock held.
 *
 * @throws {CniError} code 100
 */
export function refuseOverlaps(filter: PortTable, record: AttachmentRecord): void {
  for (const { port, family, element } of hostPortMaps(record)) {
    const claimed =
      specificAddress(port) === undefined
        ? findSpecific(filter, { port, family, element })
        : getElements(filter.socket, [
            {
              set: hostPortSet(family, 'any'),
              element: { key: hostPortKey(port, undefined) },
            },
          ])[0];
    if (claimed !== undefined) throw portTaken(record, port, claimed);
  }
}

/** A port of a single address with this number, whichever the address. */
function findSpecific(
  { socket }: PortTable,
  { port, family, element }: Pick<HostPortElement, 'port' | 'family' | 'element'>,
): SetElement | undefined {
  const end = hostPortKey(port, undefined);
  return listElements(socket, hostPortSet(family, 'specific')).find(
    ({ key, comment }) =>
      comment !== element.comment && isEqual(key.subarray(key.byteLength - end.byteLength), end),
  );
}

/** The error for a host port that is there already; undefined for any other element. */
export function takenPort(
  { socket }: PortTable,
  record: AttachmentRecord,
  refused: ElementChange | undefined,
): CniError | undefined {
  const entry = hostPortMaps(record).find(
    ({ set, element }) =>
      refused !== undefined &&
      set.set === refused.set.set &&
      isEqual(element.key, refused.element.key),
  );
  if (entry === undefined) return undefined;
  const [there] = getElements(socket, [entry]);
  return there === undefined ? undefined : portTaken(record, entry.port, there);
}

function portTaken(
  record: AttachmentRecord,
  port: HostPortElement['port'],
  { comment = '' }: SetElement,
): CniError {
  const [network = '', containerId = '', ifName = ''] = comment.split(' ');
  const hostIp = specificAddress(port);
  const name = `${hostIp === undefined ? '' : `${formatAddress(hostIp)} `}${port.protocol} ${port.hostPort}`;
  const self = comment === ownerComment(record);
  return new CniError(
    hostPortTaken,
    `Cannot map host port ${name}: container ${containerId} of network ${network} has it`,
    {
      hint: self
        ? 'it is the same container: it was added before and not deleted'
        : `interface ${ifName}; delete that container, or choose another port`,
    },
  );
}

/** Runs `fn` while nobody else gives out host ports. */
export function withPortLock({ sys, directory }: PortLock, fn: () => void): void {
  makeDirectory(directory, 0o700);
  const fd = openSync(join(directory, '.host-ports'), 'a', 0o600);
  try {
    sys.flock(fd, LOCK_EX);
    fn();
  } finally {
    closeSync(fd);
  }
}

function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

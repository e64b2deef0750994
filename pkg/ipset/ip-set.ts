/**
 * The noun of this vocabulary: sets of addresses and ports in the kernel (ipset), as data. Members
 * are text in the very form `ipset save` prints it, so that comparing them is comparing strings.
 */
import type { Family } from '#pkg/ip/address.ts';

export type IpSetType =
  | 'hash:ip'
  | 'hash:ip,port'
  | 'hash:ip,port,ip'
  | 'hash:ip,port,net'
  | 'bitmap:port';

/** What a set is, without what is in it. */
export interface IpSetKind {
  /** At most 31 characters (IPSET_MAXNAMELEN). */
  readonly name: string;
  readonly type: IpSetType;
  /** Sets of ports have none. */
  readonly family: Family | undefined;
}

export interface IpSet extends IpSetKind {
  readonly members: ReadonlySet<string>;
}

/** A set as read from the kernel. */
export interface ObservedIpSet extends IpSet {
  /** How many members fit; undefined for sets of ports. */
  readonly maxMembers: number | undefined;
}

/** Room for members that the kernel takes by default; a set costs what is in it, not its room. */
const defaultRoom = 65_536;

/** Room for twice as many as there are: a set is then made anew once in a long time. */
export function roomFor(members: number): number {
  let room = defaultRoom;
  while (room < 2 * members) room *= 2;
  return room;
}

/** Of a set while it is filled: at most 31 characters, as the kernel has it. */
export function temporaryName(name: string): string {
  return `${name.slice(0, 27)}-NEW`;
}

/** "10.96.0.1,tcp:80" */
export function addressAndPort(address: string, protocol: string, port: number): string {
  return `${address},${protocol}:${port}`;
}

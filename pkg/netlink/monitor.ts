/** Tells when the kernel's network configuration changes, whoever changed it. For daemons only. */
import { isErrno } from '#pkg/errors/agent-error.ts';
import { addressFromBytes, type Address } from '#pkg/ip/address.ts';
import type { Prefix } from '#pkg/ip/prefix.ts';
import { MSG_DONTWAIT, MSG_TRUNC, POLLIN } from '#pkg/sys/constants.ts';
import { attachSocketFilter } from '#pkg/sys/socket-filter.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { getU32, readAttributes, readString, readU32 } from './attribute.ts';
import {
  AF_INET6,
  IFA_ADDRESS,
  IFA_LOCAL,
  IFLA_IFNAME,
  NETCONFA_IFINDEX,
  NETCONFA_IFINDEX_ALL,
  NETLINK_ADD_MEMBERSHIP,
  NETLINK_ROUTE,
  RTA_DST,
  RTA_GATEWAY,
  RTA_MULTIPATH,
  RTA_OIF,
  RTA_VIA,
  RTM_DELADDR,
  RTM_DELLINK,
  RTM_DELNEIGH,
  RTM_DELROUTE,
  RTM_NEWADDR,
  RTM_NEWLINK,
  RTM_NEWNEIGH,
  RTM_NEWNETCONF,
  RTM_NEWROUTE,
  RTNLGRP_IPV4_IFADDR,
  RTNLGRP_IPV4_NETCONF,
  RTNLGRP_IPV4_ROUTE,
  RTNLGRP_IPV6_IFADDR,
  RTNLGRP_IPV6_NETCONF,
  RTNLGRP_IPV6_ROUTE,
  RTNLGRP_LINK,
  RTNLGRP_NEIGH,
  SOL_NETLINK,
} from './constants.ts';
import { openNetlinkDescriptor, setOption } from './descriptor.ts';
import { parseMessages, type Message } from './message.ts';
import { exceptRequestsOf } from './own-filter.ts';

/**
 * What to watch, in both families. Neighbours change all the time on a busy node. `forwarding` is
 * the setting of the whole host: net/ipv4/ip_forward, net/ipv6/conf/all/forwarding.
 */
export type KernelGroup = 'link' | 'address' | 'route' | 'neighbor' | 'forwarding';

/** One change; `resync` means that some were lost and everything must be looked at. */
export type KernelChange = { readonly kind: 'resync' } | ObjectChange;

export interface ObjectChange {
  readonly kind: KernelGroup;
  /** Deleted, rather than added or changed. */
  readonly deleted: boolean;
  /** The link concerned; undefined for the host's settings and routes without one link. */
  readonly linkIndex: number | undefined;
  /** Of a link: its name at that moment. By now it may have another, or be gone. */
  readonly linkName?: string;
  /** Of an address: which. */
  readonly address?: Address;
  /** Of a route: who made it (`rtm_protocol`). */
  readonly protocol?: number;
  /** Of a route: where to. */
  readonly destination?: Prefix;
  /** Of a route: by way of a router, or of several. */
  readonly gateway?: true;
}

export interface KernelWatch extends Disposable {
  /** Looks now, at everything that is there: changes made before are reported before it returns. */
  look(): void;
  /**
   * Carries out a write of forwarding entries, which must be done when it returns: that such entries
   * are new or changed is not told meanwhile, whoever did it. Only with `exceptPortId`.
   */
  withoutForwarding<T>(write: () => T): T;
}

/**
 * Calls `onChange` for every change, our own included, until disposed. Opens its socket in the
 * calling thread's namespace, so a daemon calls it outside of any withNetns().
 *
 * @param exceptPortId of a socket whose requests concerning routes and neighbours are not told: the
 *   kernel does not even queue what it says of them. FDB entries and the ends of neighbours are told
 *   all the same, since the kernel does not say whose request it was (drivers/net/vxlan,
 *   vxlan_fdb_info; net/core/neighbour.c, neigh_cleanup_and_release).
 *
 * The socket is looked at every {@link intervalMs}: Node has no API to wait for a descriptor of
 * ours, and the addon of the npm package "netlink" (0.3.0), which has one, aborts the process when
 * its socket overflows (it builds the error for POLLERR from a null pointer). What `onChange`
 * throws ends the process as any uncaught error does.
 */
export function watchKernel(
  sys: Sys,
  groups: readonly KernelGroup[],
  onChange: (change: KernelChange) => void,
  exceptPortId?: number,
): KernelWatch {
  const fd = openNetlinkDescriptor(sys, NETLINK_ROUTE, receiveBufferBytes);
  try {
    if (exceptPortId !== undefined) attachSocketFilter(sys, fd, exceptRequestsOf(exceptPortId));
    for (const value of groups.flatMap((name) => groupNumbers[name])) {
      setOption(sys, { fd, level: SOL_NETLINK, name: NETLINK_ADD_MEMBERSHIP, value });
    }
  } catch (error) {
    sys.close(fd);
    throw error;
  }
  const buffer = new Uint8Array(datagramBytes);
  let timer: NodeJS.Timeout | undefined = setTimeout(lookNext, intervalMs);
  let lost = false;

  /** Whether it has seen everything. */
  function look(maxDatagrams: number): boolean {
    // Asked once: that there is nothing more is an exception, which costs more than this.
    let isEmpty = sys.poll(fd, POLLIN, 0) === 0;
    for (let i = 0; i < maxDatagrams && !isEmpty; i++) {
      const changes = receive();
      isEmpty = changes === undefined;
      if (!lost) for (const change of changes ?? []) report(change);
      if (timer === undefined) return true;
    }
    // An overflown socket gets nothing more, and no word of it, until it has been emptied. Only now
    // is everything that changes from here on sure to be reported.
    if (isEmpty && lost) report({ kind: 'resync' });
    if (isEmpty) lost = false;
    return isEmpty;
  }

  function lookNext(): void {
    // While more is waiting: let others run, then go on at once.
    next(look(maxDatagramsPerLook) ? intervalMs : 0);
  }

  function report(change: KernelChange): void {
    if (timer !== undefined) onChange(change);
  }

  function next(delayMs: number): void {
    if (timer !== undefined) timer = setTimeout(lookNext, delayMs);
  }

  /** What the next datagram tells; undefined when there is none. */
  function receive(): readonly KernelChange[] | undefined {
    try {
      const length = sys.recv(fd, buffer, MSG_DONTWAIT | MSG_TRUNC);
      if (length <= buffer.byteLength) {
        return parseMessages(buffer.subarray(0, length)).flatMap(changesOf);
      }
    } catch (error) {
      if (isErrno(error, 'EAGAIN')) return undefined;
      if (!isErrno(error, 'ENOBUFS')) throw error;
    }
    lost = true;
    return nothing;
  }

  return {
    look: () => {
      if (timer !== undefined) look(Number.POSITIVE_INFINITY);
    },
    withoutForwarding: (write) => {
      if (exceptPortId === undefined || timer === undefined) return write();
      attachSocketFilter(sys, fd, exceptRequestsOf(exceptPortId, { forwarding: false }));
      try {
        return write();
      } finally {
        attachSocketFilter(sys, fd, exceptRequestsOf(exceptPortId));
      }
    },
    [Symbol.dispose]() {
      if (timer === undefined) return;
      clearTimeout(timer);
      timer = undefined;
      sys.close(fd);
    },
  };
}

/** How long a change may stay unnoticed. An idle look is one system call. */
const intervalMs = 200;

const maxDatagramsPerLook = 1000;

/** Room for the events of a few thousand objects changed between two looks. */
const receiveBufferBytes = 4 * 1024 * 1024;

/** A notification is one message, far below this even for a link with many attributes. */
const datagramBytes = 32 * 1024;

const groupNumbers: Readonly<Record<KernelGroup, readonly number[]>> = {
  link: [RTNLGRP_LINK],
  address: [RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR],
  route: [RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE],
  neighbor: [RTNLGRP_NEIGH],
  forwarding: [RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV6_NETCONF],
};

function changesOf({ type, body }: Message): KernelChange[] {
  if (body.byteLength < 8) return [];
  switch (type) {
    case RTM_NEWLINK:
    case RTM_DELLINK: {
      const linkName = readString(readAttributes(body.subarray(16)).get(IFLA_IFNAME));
      const deleted = type === RTM_DELLINK;
      return [
        { kind: 'link', deleted, linkIndex: indexAt4(body), ...defined('linkName', linkName) },
      ];
    }
    case RTM_NEWADDR:
    case RTM_DELADDR: {
      const address = addressOf(body);
      const deleted = type === RTM_DELADDR;
      return [
        { kind: 'address', deleted, linkIndex: indexAt4(body), ...defined('address', address) },
      ];
    }
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH:
      return [{ kind: 'neighbor', deleted: type === RTM_DELNEIGH, linkIndex: indexAt4(body) }];
    case RTM_NEWROUTE:
    case RTM_DELROUTE: {
      const attributes = readAttributes(body.subarray(12));
      const linkIndex = readU32(attributes.get(RTA_OIF));
      const deleted = type === RTM_DELROUTE;
      const hasGateway = [RTA_GATEWAY, RTA_VIA, RTA_MULTIPATH].some((type) => attributes.has(type));
      return [
        {
          kind: 'route',
          deleted,
          linkIndex,
          ...defined('protocol', body[5]),
          ...defined('destination', destinationOf(body, attributes.get(RTA_DST))),
          ...(hasGateway ? { gateway: true } : {}),
        },
      ];
    }
    case RTM_NEWNETCONF: {
      // struct netconfmsg { u8 family; }; every new link has a message of its own too.
      const linkIndex = readU32(readAttributes(body.subarray(4)).get(NETCONFA_IFINDEX));
      if (linkIndex !== NETCONFA_IFINDEX_ALL) return [];
      return [{ kind: 'forwarding', deleted: false, linkIndex: undefined }];
    }
    default:
      return [];
  }
}

const nothing: readonly KernelChange[] = [];

/** struct rtmsg: family, length of the destination. One of length 0 is not written out. */
function destinationOf(body: Uint8Array, written: Uint8Array | undefined): Prefix | undefined {
  const bytes = written ?? new Uint8Array(body[0] === AF_INET6 ? 16 : 4);
  if (bytes.byteLength !== 4 && bytes.byteLength !== 16) return undefined;
  return { address: addressFromBytes(bytes), length: body[1] ?? 0 };
}

/** On a point-to-point device IFA_ADDRESS is the other end's, and IFA_LOCAL ours. */
function addressOf(body: Uint8Array): Address | undefined {
  const attributes = readAttributes(body.subarray(8));
  const bytes = attributes.get(IFA_LOCAL) ?? attributes.get(IFA_ADDRESS);
  return bytes?.byteLength === 4 || bytes?.byteLength === 16 ? addressFromBytes(bytes) : undefined;
}

function defined<K extends string, V>(name: K, value: V | undefined): { [P in K]?: V } {
  return value === undefined ? {} : ({ [name]: value } as { [P in K]: V });
}

/** struct ifinfomsg, ifaddrmsg and ndmsg all have the link's index there. */
function indexAt4(body: Uint8Array): number {
  return getU32(body, 4);
}

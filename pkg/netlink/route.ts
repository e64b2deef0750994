/** Routes. */
import {
  addressBits,
  addressFromBytes,
  formatAddress,
  type Address,
  type Family,
} from '#pkg/ip/address.ts';
import { formatPrefix, networkOf, type Prefix } from '#pkg/ip/prefix.ts';
import {
  attributeU32,
  getU16,
  getU32,
  nested,
  readAttributes,
  readNested,
  readU32,
  type Attributes,
} from './attribute.ts';
import { BodyWriter } from './body-writer.ts';
import {
  IP6_RT_PRIO_USER,
  NLM_F_APPEND,
  NLM_F_CREATE,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  RT_SCOPE_LINK,
  RT_SCOPE_NOWHERE,
  RT_SCOPE_UNIVERSE,
  RT_TABLE_MAIN,
  RTA_DST,
  RTA_GATEWAY,
  RTA_METRICS,
  RTA_MULTIPATH,
  RTA_OIF,
  RTA_PREFSRC,
  RTA_PRIORITY,
  RTA_TABLE,
  RTA_VIA,
  RTAX_ADVMSS,
  RTAX_MTU,
  RTM_DELROUTE,
  RTM_F_CLONED,
  RTM_GETROUTE,
  RTM_NEWROUTE,
  RTN_UNICAST,
  RTNH_F_ONLINK,
  RTPROT_BOOT,
} from './constants.ts';
import { DescribedRequest } from './described-request.ts';
import { familyFromNumber, familyNumber } from './family.ts';
import type { Message } from './message.ts';
import {
  encapAttributes,
  readAddress,
  readEncapsulation,
  type Encapsulation,
} from './route-encap.ts';
import type { NetlinkRequest, NetlinkSocket } from './socket.ts';

/** A unicast route with one next hop. */
export interface RouteEntry {
  readonly destination: Prefix;
  /** The next hop; undefined when the destination is on the link itself, but for `viaOtherFamily`. */
  readonly gateway?: Address;
  /** The next hop has an address of the other family (RFC 8950); observed only. */
  readonly viaOtherFamily?: true;
  readonly linkIndex?: number;
  /** The next hop needs no route of its own. */
  readonly onLink?: boolean;
  /** Source address of what this host sends along the route. */
  readonly source?: Address;
  /** Lower wins. Undefined is the kernel's default: 0 for IPv4, 1024 for IPv6. */
  readonly metric?: number;
  /** Routing table; undefined is the main one, as to the kernel 0 is (RT_TABLE_UNSPEC). */
  readonly table?: number;
  /** Who made it (`rtm_protocol`); undefined is "boot", as `ip route` has it. */
  readonly protocol?: number;
  /** RT_SCOPE_*; undefined: link without a gateway, else universe. IPv6 has no scopes. */
  readonly scope?: number;
  readonly mtuBytes?: number;
  /** Packets are put into IPv6 packets between these addresses; on a device made for it. */
  readonly encap?: Encapsulation;
  /** Maximum segment size advertised to TCP peers, in bytes. */
  readonly advertisedMssBytes?: number;
}

/**
 * The unicast routes of a family, in one table (main when undefined), of one protocol or all. A
 * route with several next hops is listed once for each.
 */
export function listRoutes(
  socket: NetlinkSocket,
  filter: { readonly family: Family; readonly table?: number; readonly protocol?: number },
): RouteEntry[] {
  const table = tableNumber(filter.table);
  const header = routeHeader({ family: filter.family, protocol: filter.protocol ?? 0 });
  return socket
    .dump({
      type: RTM_GETROUTE,
      // With NETLINK_GET_STRICT_CHK the kernel filters; old ones give everything.
      body: [header.finish(), attributeU32(RTA_TABLE, table)],
      what: `list ${filter.family === 'ip' ? 'IPv4' : 'IPv6'} routes`,
    })
    .flatMap(parseRoute)
    .filter(
      (route) =>
        route.destination.address.family === filter.family &&
        tableNumber(route.table) === table &&
        (filter.protocol === undefined || route.protocol === filter.protocol),
    );
}

/** Adds a route; EEXIST when there is one with this destination, metric and table. */
export function addRouteRequest(route: RouteEntry): NetlinkRequest {
  return routeRequest('add', RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, route);
}

/** Adds a route beside that with its destination, metric and table; EEXIST for the very same. */
export function appendRouteRequest(route: RouteEntry): NetlinkRequest {
  return routeRequest('add', RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND, route);
}

/**
 * Adds a route in place of that with its destination, metric and table, whoever made that one;
 * packets see either the old route or the new one.
 */
export function replaceRouteRequest(route: RouteEntry): NetlinkRequest {
  return routeRequest('replace', RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, route);
}

/** Deletes the route that is like this one; ESRCH when there is none. */
export function deleteRouteRequest(route: RouteEntry): NetlinkRequest {
  return routeRequest('delete', RTM_DELROUTE, 0, route);
}

function routeRequest(
  verb: string,
  type: number,
  flags: number,
  route: RouteEntry,
): NetlinkRequest {
  const { destination, gateway, linkIndex, source } = route;
  const deleting = type === RTM_DELROUTE;
  // A deletion without a metric takes whichever route comes first. For IPv4 no number says "0".
  const byDefault = deleting ? defaultMetric(destination.address.family) : 0;
  const metric = route.metric ?? (byDefault === 0 ? undefined : byDefault);
  // A deletion with "nowhere" matches any scope.
  const byGateway = gateway === undefined ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  const body = routeHeader({
    family: destination.address.family,
    destinationLength: destination.length,
    protocol: route.protocol ?? (deleting ? 0 : RTPROT_BOOT),
    scope: route.scope ?? (deleting ? RT_SCOPE_NOWHERE : byGateway),
    type: RTN_UNICAST,
    flags: route.onLink === true ? RTNH_F_ONLINK : 0,
  });
  if (destination.length > 0) body.addAddress(RTA_DST, networkOf(destination).address);
  if (gateway !== undefined) body.addAddress(RTA_GATEWAY, gateway);
  if (linkIndex !== undefined) body.addU32(RTA_OIF, linkIndex);
  if (source !== undefined) body.addAddress(RTA_PREFSRC, source);
  if (metric !== undefined) body.addU32(RTA_PRIORITY, metric);
  body.addU32(RTA_TABLE, route.table ?? RT_TABLE_MAIN);
  const metrics = [
    ...(route.mtuBytes === undefined ? [] : [attributeU32(RTAX_MTU, route.mtuBytes)]),
    ...(route.advertisedMssBytes === undefined
      ? []
      : [attributeU32(RTAX_ADVMSS, route.advertisedMssBytes)]),
  ];
  if (metrics.length > 0) body.addWhole(nested(RTA_METRICS, metrics));
  for (const one of encapAttributes(route.encap)) body.addWhole(one);
  const describe = (): string => `${verb} route ${describeRoute(route)}`;
  return new DescribedRequest(type, flags, body.finish(), describe);
}

/** "10.244.2.0/24 via 192.168.0.2 dev 7" */
function describeRoute({ destination, gateway, linkIndex }: RouteEntry): string {
  const via = gateway === undefined ? '' : ` via ${formatAddress(gateway)}`;
  const dev = linkIndex === undefined ? '' : ` dev ${linkIndex}`;
  return `${formatPrefix(destination)}${via}${dev}`;
}

/** The routes of a RTM_NEWROUTE message, one for each next hop; nothing for any other message. */
export function parseRoute(message: Message): RouteEntry[] {
  const { body } = message;
  if (message.type !== RTM_NEWROUTE || body.byteLength < 12) return [];
  const family = familyFromNumber(body[0]);
  const flags = getU32(body, 8);
  // Cloned: a cached answer of an exception (path MTU, redirect), not configuration.
  if (family === undefined || body[7] !== RTN_UNICAST || (flags & RTM_F_CLONED) !== 0) return [];
  const attributes = readAttributes(body.subarray(12));
  const destination = attributes.get(RTA_DST);
  const metric = readU32(attributes.get(RTA_PRIORITY)) ?? 0;
  const metrics = readNested(attributes.get(RTA_METRICS));
  const shared = {
    destination: {
      address:
        destination?.byteLength === addressBits(family) / 8
          ? addressFromBytes(destination)
          : { family, value: 0n },
      length: body[1] ?? 0,
    },
    ...defined('source', readAddress(attributes.get(RTA_PREFSRC))),
    ...(metric === defaultMetric(family) ? {} : { metric }),
    table: readU32(attributes.get(RTA_TABLE)) ?? body[4] ?? 0,
    protocol: body[5] ?? 0,
    scope: body[6] ?? 0,
    ...defined('mtuBytes', readU32(metrics.get(RTAX_MTU))),
    ...defined('advertisedMssBytes', readU32(metrics.get(RTAX_ADVMSS))),
  };
  return nextHops(attributes, flags).map((hop) => ({ ...shared, ...hop }));
}

type NextHop = Pick<RouteEntry, 'gateway' | 'viaOtherFamily' | 'linkIndex' | 'onLink' | 'encap'>;

function nextHops(attributes: Attributes, flags: number): NextHop[] {
  const multipath = attributes.get(RTA_MULTIPATH);
  if (multipath === undefined)
    return [nextHop(attributes, flags, readU32(attributes.get(RTA_OIF)))];
  const hops: NextHop[] = [];
  // struct rtnexthop { u16 length; u8 flags; u8 hops; int ifindex; } and attributes
  for (let at = 0; at + 8 <= multipath.byteLength;) {
    const length = getU16(multipath, at);
    if (length < 8 || at + length > multipath.byteLength) break;
    const own = readAttributes(multipath.subarray(at + 8, at + length));
    hops.push(nextHop(own, multipath[at + 2] ?? 0, getU32(multipath, at + 4)));
    at += (length + 3) & ~3;
  }
  return hops;
}

function nextHop(attributes: Attributes, flags: number, linkIndex: number | undefined): NextHop {
  return {
    ...defined('gateway', readAddress(attributes.get(RTA_GATEWAY))),
    ...(attributes.has(RTA_VIA) ? { viaOtherFamily: true as const } : {}),
    ...defined('linkIndex', linkIndex),
    onLink: (flags & RTNH_F_ONLINK) !== 0,
    ...defined('encap', readEncapsulation(attributes)),
  };
}

function defaultMetric(family: Family): number {
  return family === 'ip' ? 0 : IP6_RT_PRIO_USER;
}

function defined<K extends string, V>(name: K, value: V | undefined): { [P in K]?: V } {
  return value === undefined ? {} : ({ [name]: value } as { [P in K]: V });
}

function tableNumber(table = 0): number {
  return table === 0 ? RT_TABLE_MAIN : table;
}

/** struct rtmsg (include/uapi/linux/rtnetlink.h); tables above 255 go by RTA_TABLE alone. */
function routeHeader(header: {
  readonly family: Family;
  readonly destinationLength?: number;
  readonly protocol?: number;
  readonly scope?: number;
  readonly type?: number;
  readonly flags?: number;
}): BodyWriter {
  const { destinationLength = 0, protocol = 0, scope = 0, type = 0, flags = 0 } = header;
  const body = new BodyWriter(12);
  body.setU8(0, familyNumber(header.family));
  body.setU8(1, destinationLength);
  body.setU8(5, protocol);
  body.setU8(6, scope);
  body.setU8(7, type);
  body.setU32(8, flags);
  return body;
}

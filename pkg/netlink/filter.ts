/** Filters on queueing disciplines: the one that sends a device's incoming frames to another. */
import {
  attribute,
  attributeString,
  attributeU32,
  concatBytes,
  littleEndian,
  nested,
  readAttributes,
  readNested,
  readString,
  viewOf,
  type Attributes,
} from './attribute.ts';
import {
  ETH_P_ALL,
  NLM_F_CREATE,
  NLM_F_EXCL,
  RTM_GETTFILTER,
  RTM_NEWTFILTER,
  TC_ACT_STOLEN,
  TC_U32_TERMINAL,
  TCA_ACT_KIND,
  TCA_ACT_OPTIONS,
  TCA_EGRESS_REDIR,
  TCA_KIND,
  TCA_MIRRED_PARMS,
  TCA_OPTIONS,
  TCA_U32_ACT,
  TCA_U32_CLASSID,
  TCA_U32_SEL,
} from './constants.ts';
import type { Message } from './message.ts';
import { ingressHandle } from './qdisc.ts';
import type { NetlinkRequest, NetlinkSocket } from './socket.ts';
import { trafficControlHeader, trafficControlHeaderBytes } from './traffic-control.ts';

/**
 * Sends every frame that arrives on a device, which has an ingress qdisc, out of another one. u32
 * with a match on nothing, and not matchall: kernels are built without that one.
 */
export function redirectIngressRequest(linkIndex: number, toIndex: number): NetlinkRequest {
  return {
    type: RTM_NEWTFILTER,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    body: [
      trafficControlHeader({
        linkIndex,
        parent: ingressHandle,
        info: ((priority << 16) | networkOrder(ETH_P_ALL)) >>> 0,
      }),
      attributeString(TCA_KIND, 'u32'),
      nested(TCA_OPTIONS, [
        attributeU32(TCA_U32_CLASSID, 0x10001),
        attribute(TCA_U32_SEL, matchAll()),
        nested(TCA_U32_ACT, [
          nested(firstAction, [
            attributeString(TCA_ACT_KIND, 'mirred'),
            nested(TCA_ACT_OPTIONS, [attribute(TCA_MIRRED_PARMS, redirectTo(toIndex))]),
          ]),
        ]),
      ]),
    ],
    what: `redirect what link ${linkIndex} receives to link ${toIndex}`,
  };
}

/** The devices that filters send a device's incoming frames to, in the order of the filters. */
export function listIngressRedirects(socket: NetlinkSocket, linkIndex: number): number[] {
  return socket
    .dump({
      type: RTM_GETTFILTER,
      body: [trafficControlHeader({ linkIndex, parent: ingressHandle })],
      what: `list ingress filters of link ${linkIndex}`,
    })
    .flatMap(redirectTargets);
}

/** Actions are numbered, in the order they are carried out. */
const firstAction = 1;
const maxActions = 32;
const priority = 1;

/** struct tc_u32_sel with one struct tc_u32_key, whose mask of nothing every frame matches. */
function matchAll(): Uint8Array {
  const selector = new Uint8Array(16);
  selector[0] = TC_U32_TERMINAL;
  selector[2] = 1;
  return concatBytes([selector, new Uint8Array(16)]);
}

/** Where numbers stand in struct tc_mirred. */
const mirred = { bytes: 28, action: 8, egressAction: 20, linkIndex: 24 } as const;

function redirectTo(linkIndex: number): Uint8Array {
  const bytes = new Uint8Array(mirred.bytes);
  const view = viewOf(bytes);
  view.setInt32(mirred.action, TC_ACT_STOLEN, littleEndian);
  view.setInt32(mirred.egressAction, TCA_EGRESS_REDIR, littleEndian);
  view.setUint32(mirred.linkIndex, linkIndex, littleEndian);
  return bytes;
}

function redirectTargets({ type, body }: Message): number[] {
  if (type !== RTM_NEWTFILTER) return [];
  const attributes = readAttributes(body.subarray(trafficControlHeaderBytes));
  const actions = readNested(readNested(attributes.get(TCA_OPTIONS)).get(TCA_U32_ACT));
  const targets: number[] = [];
  for (let i = firstAction; i <= maxActions; i++) {
    const target = redirectTarget(readNested(actions.get(i)));
    if (target !== undefined) targets.push(target);
  }
  return targets;
}

function redirectTarget(action: Attributes): number | undefined {
  if (readString(action.get(TCA_ACT_KIND)) !== 'mirred') return undefined;
  const bytes = readNested(action.get(TCA_ACT_OPTIONS)).get(TCA_MIRRED_PARMS);
  if (bytes === undefined || bytes.byteLength < mirred.bytes) return undefined;
  const view = viewOf(bytes);
  const redirects = view.getInt32(mirred.egressAction, littleEndian) === TCA_EGRESS_REDIR;
  return redirects ? view.getUint32(mirred.linkIndex, littleEndian) : undefined;
}

/** A 16-bit number whose bytes in memory are in network order. */
function networkOrder(value: number): number {
  return littleEndian ? ((value & 0xff) << 8) | (value >> 8) : value;
}

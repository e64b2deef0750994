/** Queueing disciplines: the token bucket that shapes a device, and the hook for incoming frames. */
import { isErrno } from '#pkg/errors/agent-error.ts';
import {
  attribute,
  attributeString,
  attributeU64,
  littleEndian,
  nested,
  readAttributes,
  readNested,
  readString,
  readU64,
  viewOf,
} from './attribute.ts';
import {
  NLM_F_CREATE,
  NLM_F_EXCL,
  RTM_DELQDISC,
  RTM_GETQDISC,
  RTM_NEWQDISC,
  TC_H_INGRESS,
  TC_H_ROOT,
  TCA_KIND,
  TCA_OPTIONS,
  TCA_TBF_PARMS,
  TCA_TBF_RATE64,
} from './constants.ts';
import type { Message } from './message.ts';
import type { NetlinkRequest, NetlinkSocket } from './socket.ts';
import {
  readTrafficControlHeader,
  trafficControlHeader,
  trafficControlHeaderBytes,
} from './traffic-control.ts';

/** A token bucket filter, tc-tbf(8). */
export interface TokenBucket {
  readonly rateBytesPerSecond: number;
  /** How long a burst may last, in the scheduler's ticks (/proc/net/psched): the bucket's size. */
  readonly bufferTicks: number;
  /** How much may wait for tokens; more is dropped. */
  readonly limitBytes: number;
}

export interface Qdisc {
  readonly linkIndex: number;
  readonly kind: string;
  readonly handle: number;
  readonly parent: number;
  /** Of kind "tbf" only. */
  readonly tokenBucket: TokenBucket | undefined;
}

/** "ffff:", the handle of every ingress qdisc. */
export const ingressHandle = 0xffff0000;

/** Where a qdisc hangs on its device. */
export type QdiscPlace = 'root' | 'ingress';

/** All qdiscs of one device. */
export function listQdiscs(socket: NetlinkSocket, linkIndex: number): Qdisc[] {
  return socket
    .dump({
      type: RTM_GETQDISC,
      body: [trafficControlHeader({ linkIndex })],
      what: `list qdiscs of link ${linkIndex}`,
    })
    .flatMap(parseQdisc)
    .filter((qdisc) => qdisc.linkIndex === linkIndex);
}

/**
 * Makes a token bucket, handle "1:", the root of a device. EEXIST when one is there.
 *
 * @param linkIndex the device that sends no faster
 */
export function addTokenBucketRequest(linkIndex: number, bucket: TokenBucket): NetlinkRequest {
  const { rateBytesPerSecond } = bucket;
  const wide = rateBytesPerSecond > u32Max;
  return {
    type: RTM_NEWQDISC,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    body: [
      trafficControlHeader({ linkIndex, handle: 0x10000, parent: TC_H_ROOT }),
      attributeString(TCA_KIND, 'tbf'),
      nested(TCA_OPTIONS, [
        attribute(TCA_TBF_PARMS, tokenBucketBytes(bucket)),
        ...(wide ? [attributeU64(TCA_TBF_RATE64, rateBytesPerSecond)] : []),
      ]),
    ],
    what: `shape link ${linkIndex} to ${rateBytesPerSecond} bytes per second`,
  };
}

/** Makes the hook for filters on frames that a device receives. */
export function addIngressRequest(linkIndex: number): NetlinkRequest {
  return {
    type: RTM_NEWQDISC,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    body: [
      trafficControlHeader({ linkIndex, handle: ingressHandle, parent: TC_H_INGRESS }),
      attributeString(TCA_KIND, 'ingress'),
    ],
    what: `add ingress qdisc to link ${linkIndex}`,
  };
}

/** Deletes a qdisc with its filters; false when there was none, or the device is gone. */
export function deleteQdisc(socket: NetlinkSocket, linkIndex: number, place: QdiscPlace): boolean {
  const parent = place === 'root' ? TC_H_ROOT : TC_H_INGRESS;
  try {
    socket.request({
      type: RTM_DELQDISC,
      body: [trafficControlHeader({ linkIndex, parent })],
      what: `delete ${place} qdisc of link ${linkIndex}`,
    });
    return true;
  } catch (error) {
    // EINVAL: the hook for filters has no qdisc.
    if (['ENOENT', 'ENODEV', 'EINVAL'].some((code) => isErrno(error, code))) return false;
    throw error;
  }
}

/** The qdisc of a RTM_NEWQDISC message; nothing for any other message. */
export function parseQdisc(message: Message): Qdisc[] {
  const { type, body } = message;
  if (type !== RTM_NEWQDISC || body.byteLength < trafficControlHeaderBytes) return [];
  const { linkIndex, handle, parent } = readTrafficControlHeader(body);
  const attributes = readAttributes(body.subarray(trafficControlHeaderBytes));
  const kind = readString(attributes.get(TCA_KIND)) ?? '';
  const tokenBucket = kind === 'tbf' ? parseTokenBucket(attributes.get(TCA_OPTIONS)) : undefined;
  return [{ linkIndex, kind, handle, parent, tokenBucket }];
}

const u32Max = 0xffffffff;

/** Where numbers stand in struct tc_tbf_qopt, which starts with the struct tc_ratespec of the rate. */
const tbf = { bytes: 36, rate: 8, limit: 24, buffer: 28 } as const;

function tokenBucketBytes(bucket: TokenBucket): Uint8Array {
  const bytes = new Uint8Array(tbf.bytes);
  const view = viewOf(bytes);
  // The kernel takes the larger of this and the 64-bit attribute.
  view.setUint32(tbf.rate, Math.min(bucket.rateBytesPerSecond, u32Max), littleEndian);
  view.setUint32(tbf.limit, bucket.limitBytes, littleEndian);
  view.setUint32(tbf.buffer, bucket.bufferTicks, littleEndian);
  return bytes;
}

function parseTokenBucket(options: Uint8Array | undefined): TokenBucket | undefined {
  const attributes = readNested(options);
  const bytes = attributes.get(TCA_TBF_PARMS);
  if (bytes === undefined || bytes.byteLength < tbf.bytes) return undefined;
  const view = viewOf(bytes);
  return {
    rateBytesPerSecond:
      readU64(attributes.get(TCA_TBF_RATE64)) ?? view.getUint32(tbf.rate, littleEndian),
    bufferTicks: view.getUint32(tbf.buffer, littleEndian),
    limitBytes: view.getUint32(tbf.limit, littleEndian),
  };
}

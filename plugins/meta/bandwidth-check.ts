/** CHECK of the bandwidth plugin: the buckets are there, and as large as the limits say. */
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { Attachment } from '#pkg/cni/environment.ts';
import type { CniRequest } from '#pkg/cni/plugin.ts';
import { listIngressRedirects } from '#pkg/netlink/filter.ts';
import { getLink, type Link } from '#pkg/netlink/link.ts';
import { listQdiscs } from '#pkg/netlink/qdisc.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';
import type { BandwidthLimits } from './bandwidth-config.ts';
import { ifbName, referenceIfbName } from './bandwidth-names.ts';
import { isBucketFor, tokenBucketFor, type RateLimit } from './bandwidth-numbers.ts';

export interface BandwidthCheck {
  /** The host's end of the pod's veth. */
  readonly hostLink: Link;
  readonly limits: BandwidthLimits;
  readonly ticksPerMicrosecond: number;
  readonly request: CniRequest;
}

/** @throws {AgentError} that names the first thing that is not as ADD left it */
export function checkBandwidth(host: NetlinkSocket, check: BandwidthCheck): void {
  const { hostLink, limits, ticksPerMicrosecond, request } = check;
  if (limits.ingress !== undefined) {
    checkBucket(host, hostLink, { limit: limits.ingress, ticksPerMicrosecond });
  }
  if (limits.egress === undefined) return;
  const ifb = findIfb(host, request.config.name, request);
  if (!ifb.up) throw wrong(`${ifb.name} is down`);
  if (!listIngressRedirects(host, hostLink.index).includes(ifb.index)) {
    throw wrong(`what ${hostLink.name} receives is not redirected to ${ifb.name}`);
  }
  checkBucket(host, ifb, { limit: limits.egress, ticksPerMicrosecond });
}

function findIfb(host: NetlinkSocket, network: string, attachment: Attachment): Link {
  const name = ifbName(network, attachment);
  const ifb = getLink(host, name) ?? getLink(host, referenceIfbName(network, attachment));
  if (ifb === undefined) throw wrong(`interface ${name} is missing`);
  if (ifb.kind !== 'ifb') throw wrong(`${ifb.name} is no ifb`);
  return ifb;
}

function checkBucket(
  host: NetlinkSocket,
  link: Link,
  want: { readonly limit: RateLimit; readonly ticksPerMicrosecond: number },
): void {
  const bucket = listQdiscs(host, link.index).find((q) => q.tokenBucket !== undefined)?.tokenBucket;
  if (bucket === undefined) throw wrong(`${link.name} has no tbf qdisc`);
  if (isBucketFor(bucket, want.limit, want.ticksPerMicrosecond)) return;
  const { rateBytesPerSecond, limitBytes, bufferTicks } = tokenBucketFor(
    want.limit,
    want.ticksPerMicrosecond,
  );
  throw wrong(
    `${link.name} has rate ${bucket.rateBytesPerSecond}, limit ${bucket.limitBytes}, ` +
      `buffer ${bucket.bufferTicks}; expected ${rateBytesPerSecond}, ${limitBytes}, ${bufferTicks}`,
  );
}

function wrong(state: string): AgentError {
  return new AgentError('BandwidthChanged', `Cannot confirm the bandwidth limits: ${state}`);
}

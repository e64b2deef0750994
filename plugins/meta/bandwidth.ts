/**
 * The bandwidth plugin: limits what a pod receives and sends, a drop-in for the reference plugin of
 * that name. What the pod receives is what the host's end of its veth sends: a token bucket there.
 * What it sends the host's end receives, where nothing can wait; it is redirected to an IFB device
 * with a bucket of its own.
 */
import { readFileSync } from 'node:fs';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import { readPrevResult, readValidAttachments } from '#pkg/cni/config.ts';
import type { CniAddRequest, CniPlugin, CniRequest } from '#pkg/cni/plugin.ts';
import type { CniInterface, CniResult } from '#pkg/cni/result.ts';
import { redirectIngressRequest } from '#pkg/netlink/filter.ts';
import { deleteLink } from '#pkg/netlink/link-change.ts';
import { createIfb } from '#pkg/netlink/link-create.ts';
import { getLink, listLinks, type Link } from '#pkg/netlink/link.ts';
import { addIngressRequest, addTokenBucketRequest, deleteQdisc } from '#pkg/netlink/qdisc.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import type { CniSystem } from '#plugins/cni-system.ts';
import { openPodNetns } from '#plugins/pod-netns.ts';
import { checkBandwidth } from './bandwidth-check.ts';
import { parseBandwidth, type BandwidthLimits } from './bandwidth-config.ts';
import { ifbAlias, ifbAliasStart, ifbName, referenceIfbName } from './bandwidth-names.ts';
import { parseTicks, tokenBucketFor, type RateLimit } from './bandwidth-numbers.ts';

/** `type: bandwidth`, as the reference plugin of this name. */
export function bandwidthPlugin(system: CniSystem): CniPlugin {
  return {
    about: 'Podwire bandwidth: limits what a pod sends and receives',
    add: (request) => addBandwidth(system, request),
    del: (request) => deleteBandwidth(system, request),
    check: (request) => {
      const limits = parseBandwidth(request.config);
      if (isUnlimited(limits)) return;
      using host = new NetlinkSocket(system.sys);
      const prevResult = requirePrevResult(request);
      const hostLink = findHostLink(system, { request, host, prevResult });
      checkBandwidth(host, { hostLink, limits, ticksPerMicrosecond: readTicks(), request });
    },
    status: (request) => {
      parseBandwidth(request.config);
      readTicks();
    },
    gc: (request) => collectBandwidth(system, request),
  };
}

/** @throws {CniError} after everything it did is undone */
function addBandwidth(system: CniSystem, request: CniAddRequest): CniResult {
  const limits = parseBandwidth(request.config);
  const prevResult = requirePrevResult(request);
  if (isUnlimited(limits)) return prevResult;
  using host = new NetlinkSocket(system.sys);
  const hostLink = findHostLink(system, { request, host, prevResult });
  using undo = new DisposableStack();
  const context = { host, hostLink, ticksPerMicrosecond: readTicks(), undo };
  if (limits.ingress !== undefined) shape(context, hostLink.index, limits.ingress);
  const interfaces = [...prevResult.interfaces];
  if (limits.egress !== undefined) {
    interfaces.push(shapeEgress(context, limits.egress, request));
  }
  undo.move();
  return { ...prevResult, interfaces };
}

/** Idempotent, and needs nothing but names: the buckets on the veth go with it. */
function deleteBandwidth(system: CniSystem, request: CniRequest): void {
  using host = new NetlinkSocket(system.sys);
  if (deleteLink(host, ifbName(request.config.name, request))) return;
  // The reference plugin's own, from before this one took its place.
  deleteLink(host, referenceIfbName(request.config.name, request));
}

function collectBandwidth(system: CniSystem, request: CniRequest): void {
  const { config } = request;
  const valid = new Set(readValidAttachments(config).map((a) => ifbName(config.name, a)));
  using host = new NetlinkSocket(system.sys);
  const ours = ifbAliasStart(config.name);
  for (const { kind, name, index, alias } of listLinks(host)) {
    if (kind !== 'ifb' || alias?.startsWith(ours) !== true || valid.has(name)) continue;
    deleteLink(host, index);
  }
}

interface ShapeContext {
  readonly host: NetlinkSocket;
  /** The host's end of the pod's veth. */
  readonly hostLink: Link;
  readonly ticksPerMicrosecond: number;
  readonly undo: DisposableStack;
}

function shape(
  { host, ticksPerMicrosecond, undo }: ShapeContext,
  index: number,
  limit: RateLimit,
): void {
  host.request(addTokenBucketRequest(index, tokenBucketFor(limit, ticksPerMicrosecond)));
  undo.defer(() => void deleteQdisc(host, index, 'root'));
}

/** Returns the IFB device as the result names it. */
function shapeEgress(
  context: ShapeContext,
  limit: RateLimit,
  request: CniAddRequest,
): CniInterface {
  const { host, hostLink, undo } = context;
  const { config } = request;
  const ifb = createIfb(host, {
    name: ifbName(config.name, request),
    mtuBytes: hostLink.mtuBytes,
    alias: ifbAlias(config.name, request),
  });
  undo.defer(() => void deleteLink(host, ifb.index));
  // The bucket first: nothing may pass it by.
  shape(context, ifb.index, limit);
  host.request(addIngressRequest(hostLink.index));
  undo.defer(() => void deleteQdisc(host, hostLink.index, 'ingress'));
  host.request(redirectIngressRequest(hostLink.index, ifb.index));
  return { name: ifb.name, mac: ifb.mac, mtuBytes: ifb.mtuBytes };
}

/**
 * The host's end of the pod's interface: the one whose index the pod's end names, and not whichever
 * the result lists first.
 */
function findHostLink(
  system: CniSystem,
  context: {
    readonly request: CniAddRequest;
    readonly host: NetlinkSocket;
    readonly prevResult: CniResult;
  },
): Link {
  const { request, host, prevResult } = context;
  const { ifName } = request;
  if (prevResult.interfaces.length === 0) {
    throw new CniError(cniCode.invalidConfig, 'Cannot limit bandwidth: no interfaces provided');
  }
  using netns = openPodNetns(request.netns);
  using pod = withNetns(system.sys, netns.fd, () => new NetlinkSocket(system.sys), system.die);
  const podLink = getLink(pod, ifName);
  if (podLink?.kind !== 'veth' || podLink.peerIndex === undefined) {
    throw noHostLink(`container interface ${ifName} has no veth peer`);
  }
  const hostLink = getLink(host, podLink.peerIndex);
  // Indexes repeat between namespaces: the link must point back.
  const known = prevResult.interfaces.some(
    ({ name, sandbox }) => name === hostLink?.name && (sandbox ?? '') === '',
  );
  if (hostLink?.kind === 'veth' && hostLink.peerIndex === podLink.index && known) return hostLink;
  throw noHostLink('no veth peer of container interface found in host ns');
}

function noHostLink(state: string): AgentError {
  return new AgentError('LinkMissing', `Cannot limit bandwidth: ${state}`);
}

function requirePrevResult(request: CniRequest): CniResult {
  const prevResult = readPrevResult(request.config);
  if (prevResult !== undefined) return prevResult;
  throw new CniError(cniCode.invalidConfig, 'must be called as a chained plugin', {
    hint: 'prevResult is missing',
  });
}

function isUnlimited({ ingress, egress }: BandwidthLimits): boolean {
  return ingress === undefined && egress === undefined;
}

function readTicks(): number {
  return parseTicks(readFileSync('/proc/net/psched', 'utf8'));
}

/**
 * `podwire diff`: what podwire-proxy would change in this node's kernel now. Reads the same
 * configuration, the same objects and the same kernel, and makes the same plan; writes nothing.
 */
import type { Clock } from '#pkg/clock/clock.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { Prefix } from '#pkg/ip/prefix.ts';
import { createKubeClient } from '#pkg/kube/client.ts';
import { projectEndpointSlice, projectNode } from '#pkg/kube/project.ts';
import { oneNode, proxiedEndpointSlices, proxiedServices } from '#pkg/kube/resources.ts';
import { createStore } from '#pkg/kube/store.ts';
import type { EndpointSliceRecord, NodeRecord, ServiceRecord } from '#pkg/kube/types.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { byName } from '#pkg/proxy/proxied-port.ts';
import { ServiceModel } from '#pkg/proxy/service-model.ts';
import { serviceProjection } from '#cmd/podwire-proxy/feature-effects.ts';
import type { ProxyOptions } from '#cmd/podwire-proxy/options.ts';
import { watchServiceRanges } from '#cmd/podwire-proxy/service-ranges.ts';
import { clusterConfig } from '#cmd/podwire-proxy/wire.ts';
import { iptablesDiff } from './diff-iptables.ts';
import type { ModeDiff } from './diff-mode.ts';
import { nftablesDiff } from './diff-nftables.ts';

export interface DiffContext {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly version: string;
  readonly clock: Clock;
  /** For what goes wrong with the API server. */
  readonly log: Logger;
  readonly print: (text: string) => void;
  /** A sentence for people, beside what is printed. */
  readonly warn: (sentence: string) => void;
}

/** All that the proxy needs of the API. */
interface ClusterState {
  readonly services: ReadonlyMap<string, ServiceRecord>;
  readonly slices: ReadonlyMap<string, EndpointSliceRecord>;
  readonly node: NodeRecord | undefined;
  readonly serviceCIDRs: readonly Prefix[];
}

const apiTimeoutMs = 30_000;

/**
 * Prints what would change, a family after the other.
 *
 * @returns as diff(1): 0 = nothing would change, 1 = something would
 * @throws {AgentError} when the API server or the kernel cannot be read
 */
export async function runDiff(
  options: ProxyOptions,
  context: DiffContext,
  signal: AbortSignal,
): Promise<0 | 1> {
  const mode = await modeDiff(options, context, signal);
  const { node, serviceCIDRs, services, slices } = await readCluster(options, context, signal);
  const zone = node?.labels['topology.kubernetes.io/zone'];
  let different = false;
  for (const family of mode.families) {
    const model = new ServiceModel(family, { name: options.nodeName, zone });
    model.update({ services: asNews(services), slices: asNews(slices) });
    for (const { kind, object, problem } of model.problems) {
      context.warn(`${kind} ${object}: ${problem}`);
    }
    const ports = [...model.ports.values()].toSorted(byName);
    const text = await mode.diff({ family, ports, node, serviceCIDRs }, signal);
    if (text !== '') context.print(text);
    different ||= text !== '';
  }
  return different ? 1 : 0;
}

function modeDiff(
  { config }: ProxyOptions,
  { warn }: DiffContext,
  signal: AbortSignal,
): Promise<ModeDiff> {
  switch (config.mode) {
    case 'iptables':
      return iptablesDiff(config, warn, signal);
    case 'nftables':
      return nftablesDiff(config, warn, signal);
    case 'ipvs':
      throw new AgentError(
        'InvalidConfig',
        'Cannot tell what mode ipvs would change: only modes iptables and nftables are known here',
      );
  }
}

/** Lists once what the daemon watches. */
async function readCluster(
  options: ProxyOptions,
  { clock, env, log, version, warn }: DiffContext,
  signal: AbortSignal,
): Promise<ClusterState> {
  const userAgent = `podwire-diff/${version} (${process.platform}/${process.arch})`;
  const config = await clusterConfig(options, { env });
  await using client = createKubeClient(config, { clock, log, userAgent });
  const project = serviceProjection(options.config.featureGates);
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  const patience = AbortSignal.any([signal, AbortSignal.timeout(apiTimeoutMs)]);
  const services = createStore<ServiceRecord>();
  const slices = createStore<EndpointSliceRecord>();
  const nodes = createStore<NodeRecord>();
  const watches = [
    client.watchResource(proxiedServices, project, services, either),
    client.watchResource(proxiedEndpointSlices, projectEndpointSlice, slices, either),
    client.watchResource(oneNode(options.nodeName), projectNode, nodes, either),
  ];
  // Only the nftables mode knows what to do with them.
  const ranges =
    options.config.mode === 'nftables'
      ? watchServiceRanges(client, { clock, log }, either)
      : undefined;
  try {
    await Promise.all([services, slices, nodes].map((store) => store.whenSynced(patience)));
    await ranges?.whenKnown(patience);
  } catch (cause) {
    signal.throwIfAborted();
    throw new AgentError(
      'ApiUnavailable',
      `Cannot list Services, EndpointSlices and the Node at ${client.server}: no answer within ${apiTimeoutMs / 1000} s`,
      { cause },
    );
  } finally {
    stop.abort();
    await Promise.all(watches.map((watch) => watch.done));
  }
  const node = nodes.get(options.nodeName);
  if (node === undefined) warn(`Node ${options.nodeName} does not exist: give --hostname-override`);
  const serviceCIDRs = ranges?.current() ?? [];
  return { services: services.snapshot(), slices: slices.snapshot(), node, serviceCIDRs };
}

function asNews<T>(records: ReadonlyMap<string, T>): { readonly key: string; readonly new: T }[] {
  return [...records].map(([key, record]) => ({ key, new: record }));
}

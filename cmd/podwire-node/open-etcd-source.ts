/** Opens the source of nodes in etcd: first of all the network's configuration is read there. */
import { readFile } from 'node:fs/promises';
import type { Clock } from '#pkg/clock/clock.ts';
import type { EtcdConfig } from '#pkg/config/etcd-config.ts';
import { parseNetConf, type NetConf } from '#pkg/config/net-conf.ts';
import type { NodeConfig } from '#pkg/config/node-config.ts';
import { AgentError, isErrno, messageOf } from '#pkg/errors/agent-error.ts';
import { createEtcdClient, type EtcdClient } from '#pkg/etcd/client.ts';
import type { Logger } from '#pkg/log/logger.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { defaultAnnotationPrefix } from '#pkg/overlay/annotations.ts';
import { ownAddresses } from '#pkg/pod-network/own-addresses.ts';
import { parseSubnetEnv } from '#pkg/pod-network/subnet-env.ts';
import type { LeasedSubnets } from '#pkg/pod-network/subnet-lease.ts';
import { planSubnets } from '#pkg/pod-network/subnet-plan.ts';
import { EtcdSource } from './etcd-source.ts';
import { observeHostLinks } from './host-facts.ts';
import { linkWishes } from './link-wishes.ts';
import { subnetFileOf } from './network-files.ts';
import type { NodeSource } from './node-source.ts';
import { netConfNotices, type NodeOptions } from './options.ts';
import type { NodeStatus } from './status.ts';
import type { SubnetRules } from './subnet-acquisition.ts';

export interface EtcdSourceContext {
  readonly clock: Clock;
  readonly socket: NetlinkSocket;
  readonly status: NodeStatus;
  readonly signal: AbortSignal;
}

/** flannel's. */
const ttlSeconds = 24 * 60 * 60;

const retryMs = 2_000;

/**
 * Waits until etcd has a configuration of the network. Rejects with InvalidConfig when it is one
 * that we cannot have, and with the signal's reason.
 */
export async function openEtcdSource(
  options: NodeOptions,
  etcd: EtcdConfig,
  context: EtcdSourceContext & { readonly log: Logger },
): Promise<NodeSource> {
  const { clock, log, socket, status } = context;
  await using opened = new AsyncDisposableStack();
  const client = opened.use(await createEtcdClient(etcd));
  const key = `${etcd.prefix}/config`;
  const configText = await readNetConf(client, key, context);
  const netConf = parseNetConf(configText, `${key} in etcd`);
  const whole = options.withNetConf(netConf, `${key} in etcd`);
  for (const notice of netConfNotices(netConf, `${key} in etcd`, whole)) log.warn({}, notice);
  const config = {
    ...whole,
    // Nobody sees it there: it is only how records of nodes say what leases say.
    annotationPrefix: defaultAnnotationPrefix,
  };
  const source = new EtcdSource({
    client,
    prefix: etcd.prefix,
    configText,
    nodeName: options.nodeName,
    annotationPrefix: config.annotationPrefix,
    subnets: subnetsOf(netConf),
    ttlSeconds,
    renewMarginSeconds: etcd.renewMarginMinutes * 60,
    previous: await previousSubnets(config),
    addresses: (before) => ownAddresses(observeHostLinks(socket), linkWishes(config), before),
    publicIPs: {
      ...(etcd.publicIP === undefined ? {} : { ip: etcd.publicIP }),
      ...(etcd.publicIPv6 === undefined ? {} : { ip6: etcd.publicIPv6 }),
    },
    random: Math.random,
    clock,
    log,
    onWaiting: (reason) => {
      if (!source.nodes.synced) status.roundEnded({ kind: 'waiting', reason });
    },
  });
  const running = opened.move();
  return {
    nodes: source.nodes,
    ownNode: source.ownNode,
    config,
    staleness: () => source.staleness(),
    addressGone: (address) => source.addressGone(address),
    run: (runSignal) => source.run(runSignal),
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

/** The text at the key, as soon as there is one. */
async function readNetConf(
  client: EtcdClient,
  key: string,
  { clock, log, signal, status }: EtcdSourceContext & { readonly log: Logger },
): Promise<string> {
  let said: string | undefined;
  for (;;) {
    const reason = await client.get(key, signal).then(
      (entry) =>
        entry ?? `Cannot find the network's configuration: etcd has no key ${key} (flannel's JSON)`,
      (error: unknown) => {
        signal.throwIfAborted();
        return messageOf(error);
      },
    );
    if (typeof reason !== 'string') return reason.value;
    status.roundEnded({ kind: 'waiting', reason });
    if (reason !== said) log.debug({ key, reason }, 'Waiting for etcd');
    said = reason;
    await clock.sleep(retryMs, signal);
  }
}

/**
 * Where subnets are from. IPv6 alone is not to be had, as with flannel: its keys start with an IPv4
 * subnet.
 *
 * @throws {AgentError} InvalidConfig, naming the key
 */
export function subnetsOf(netConf: NetConf): SubnetRules['subnets'] {
  const { Network: network, IPv6Network: network6, EnableIPv4, EnableIPv6 } = netConf;
  if (!EnableIPv4 || network === undefined) {
    throw new AgentError(
      'InvalidConfig',
      'Cannot use the network configuration: expected Network, and EnableIPv4 not false: ' +
        'keys of subnets in etcd start with an IPv4 subnet. IPv6 alone takes nodes from Kubernetes',
    );
  }
  if (EnableIPv6 && network6 === undefined) {
    throw new AgentError(
      'InvalidConfig',
      'Cannot use the network configuration: EnableIPv6 needs IPv6Network',
    );
  }
  const { SubnetLen: length, SubnetMin: min, SubnetMax: max } = netConf;
  const ip = planSubnets({ network, length, min, max });
  if (!EnableIPv6 || network6 === undefined) return { ip, ip6: undefined };
  const { IPv6SubnetLen, IPv6SubnetMin, IPv6SubnetMax } = netConf;
  const wish6 = { length: IPv6SubnetLen, min: IPv6SubnetMin, max: IPv6SubnetMax };
  return { ip, ip6: planSubnets({ network: network6, ...wish6 }) };
}

/** What this node had before it was started again. */
async function previousSubnets(config: NodeConfig): Promise<LeasedSubnets | undefined> {
  const path = subnetFileOf(config);
  if (path === undefined) return undefined;
  try {
    return parseSubnetEnv(await readFile(path, 'utf8'));
  } catch (cause) {
    if (isErrno(cause, 'ENOENT')) return undefined;
    throw new AgentError('ReadFailed', `Cannot read ${path}`, { cause });
  }
}

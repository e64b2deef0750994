/** What single backends need besides rtnetlink: keys, a forwarder, a routing daemon's ear. */
import { join } from 'node:path';
import type { Clock } from '#pkg/clock/clock.ts';
import type { NodeConfig } from '#pkg/config/node-config.ts';
import type { DeviceDrivers } from '#pkg/host-network/rtnetlink.ts';
import { WireguardDriver, type WireguardSecrets } from '#pkg/host-network/rtnetlink-wireguard.ts';
import type { Step } from '#pkg/host-network/step.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { NETLINK_GENERIC } from '#pkg/netlink/constants.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { isWireguardLink } from '#pkg/overlay/wireguard.ts';
import { openDatagramSys } from '#pkg/sys/datagram-sys.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { createTun } from '#pkg/udp-forwarder/tun.ts';
import type { NodeMetrics } from './node-metrics.ts';
import { ensurePrivateKey } from './private-key.ts';
import type { ForwarderDriver, RoutingDriver } from './round-parts.ts';
import { createRoutingDriver } from './routing-driver.ts';
import { createUdpForwarder, openForwardingPorts } from './udp-forwarder.ts';
import type { WrittenFiles } from './written-files.ts';
import { watchWireguard } from './wireguard-watch.ts';

export interface BackendParts extends AsyncDisposable {
  /** Of the backend wireguard. */
  readonly secrets: WireguardSecrets | undefined;
  readonly drivers: DeviceDrivers;
  readonly forwarder: ForwarderDriver;
  readonly routing: RoutingDriver;
  /** These steps of ours were carried out: nobody has to be told of them. */
  wrote(steps: readonly Step[]): void;
}

export interface BackendContext {
  readonly clock: Clock;
  readonly log: Logger;
  readonly metrics: Pick<NodeMetrics, 'forwarderCounts'>;
  readonly written: WrittenFiles;
  /** Our devices, once they are known. */
  readonly watchedLinks: () => Iterable<string>;
  /** The kernel has to be read again. */
  readonly lookAgain: () => void;
}

/** @throws {AgentError} InvalidKey for a key file that holds none */
export async function openBackendParts(
  sys: Sys,
  config: NodeConfig,
  { clock, log, metrics, watchedLinks, lookAgain, written }: BackendContext,
): Promise<BackendParts> {
  await using opened = new AsyncDisposableStack();
  const generic = opened.use(new NetlinkSocket(sys, NETLINK_GENERIC));
  const secrets = await wireguardSecrets(config);
  const wireguard = new WireguardDriver(generic, secrets);
  const datagrams = openDatagramSys();
  const forwarder = opened.use(
    createUdpForwarder({
      open: (forwarding) => openForwardingPorts(sys, datagrams, forwarding),
      log,
      onFailure: lookAgain,
    }),
  );
  const routing = opened.use(
    createRoutingDriver(config.bgp, { clock, onLost: lookAgain, written }),
  );
  if (config.backend === 'udp') metrics.forwarderCounts(() => forwarder.counts());
  const watch =
    secrets === undefined
      ? undefined
      : opened.use(
          watchWireguard({
            links: () => [...watchedLinks()].filter(isWireguardLink),
            driver: wireguard,
            onChange: lookAgain,
            onError: (err) => log.warn({ err }, 'Cannot look at WireGuard'),
          }),
        );
  const running = opened.move();
  return {
    secrets,
    drivers: { wireguard, createTun: (name) => createTun(datagrams, name) },
    forwarder,
    routing,
    wrote: (steps) => watch?.wrote(steps),
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

/** Undefined for other backends: no key is made that nobody needs. */
async function wireguardSecrets(config: NodeConfig): Promise<WireguardSecrets | undefined> {
  if (config.backend !== 'wireguard') return undefined;
  const privateKey = await ensurePrivateKey(join(config.stateDir, 'wireguard.key'));
  return { privateKey, presharedKey: config.wireguard.presharedKey };
}

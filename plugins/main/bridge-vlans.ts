/** The VLANs of a pod's port, and the interface by which the host is in one. */
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import { interfaceNameProblem } from '#pkg/cni/environment.ts';
import { shortHash } from '#pkg/cni/short-hash.ts';
import {
  addAccessVlanRequest,
  addTrunkVlansRequest,
  deleteVlanRequest,
  listPortVlans,
} from '#pkg/netlink/bridge-vlan.ts';
import { changeLink, deleteLink } from '#pkg/netlink/link-change.ts';
import { createVeth } from '#pkg/netlink/link-create.ts';
import { getLink, listLinks, type Link } from '#pkg/netlink/link.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { openOwnNetns } from '#pkg/netns/netns.ts';
import type { BridgeConfig } from './bridge-config.ts';

/** Whether the configuration puts ports into VLANs. */
export function usesVlans({ vlan, vlanTrunk }: BridgeConfig): boolean {
  return vlan !== undefined || vlanTrunk.length > 0;
}

/** @throws {CniError} when the bridge would carry every VLAN to every port */
export function requireVlanFiltering(bridge: Link): void {
  if (bridge.vlanFiltering === true) return;
  throw new CniError(cniCode.invalidConfig, `"${bridge.name}" does not filter VLANs`, {
    hint: `ip link set ${bridge.name} type bridge vlan_filtering 1`,
  });
}

/**
 * Puts a port into its VLANs, and takes it out of the bridge's default one unless that is to stay.
 *
 * @throws {NetlinkError} EOPNOTSUPP from a kernel without VLANs on bridges
 */
export function setPortVlans(host: NetlinkSocket, port: number, config: BridgeConfig): void {
  const { vlan, vlanTrunk, preserveDefaultVlan } = config;
  if (!usesVlans(config)) return;
  const old = preserveDefaultVlan ? [] : listPortVlans(host, port);
  const results = host.batch([
    ...old.map(({ id }) => deleteVlanRequest(port, id)),
    ...(vlan === undefined ? [] : [addAccessVlanRequest(port, vlan)]),
    ...(vlanTrunk.length === 0 ? [] : [addTrunkVlansRequest(port, vlanTrunk)]),
  ]);
  for (const { error } of results) if (error !== undefined) throw error;
}

/**
 * The host's own interface in a VLAN, which has the gateway's address: "cni0.100", one end of a veth
 * whose other end is an access port of the bridge.
 */
export function ensureVlanGateway(
  host: NetlinkSocket,
  bridge: Link,
  config: BridgeConfig & { readonly vlan: number },
): { readonly link: Link; readonly created: boolean } {
  const name = `${bridge.name}.${config.vlan}`;
  const problem = interfaceNameProblem(name);
  if (problem !== undefined) {
    throw new CniError(
      cniCode.invalidConfig,
      `Cannot name the gateway of VLAN ${config.vlan} ${name}: the name ${problem}`,
    );
  }
  const existing = getLink(host, name);
  if (existing !== undefined) return { link: existing, created: false };
  using own = openOwnNetns();
  const port = createVeth(host, {
    mtuBytes: bridge.mtuBytes,
    host: { name: portName(name), masterIndex: bridge.index },
    peer: { name, netnsFd: own.fd },
  });
  try {
    setPortVlans(host, port.index, { ...config, vlanTrunk: [] });
    changeLink(host, name, { up: true });
    const link = getLink(host, name);
    if (link !== undefined) return { link, created: true };
    throw new CniError(cniCode.internal, `Cannot find ${name}: it was just made`);
  } catch (error) {
    deleteLink(host, port.index);
    throw error;
  }
}

/** Takes back what {@link ensureVlanGateway} made, unless a pod uses the bridge by now. */
export function revertVlanGateway(host: NetlinkSocket, bridge: Link, { name }: Link): void {
  const ports = listLinks(host).filter(({ masterIndex }) => masterIndex === bridge.index);
  if (ports.every((port) => port.name === portName(name))) deleteLink(host, portName(name));
}

/** The bridge's port that leads to the host's interface. */
function portName(gateway: string): string {
  return `veth${shortHash(gateway).slice(0, 11)}`;
}

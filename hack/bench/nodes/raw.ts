/**
 * The peer of the comparison, in a process of its own: the same messages to the kernel and nothing
 * else. `raw.ts NODES` prints how long they took, in milliseconds.
 */
import { parseAddress } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { addAddressRequest } from '#pkg/netlink/address.ts';
import { createVxlan } from '#pkg/netlink/link-create.ts';
import { changeLinkRequest } from '#pkg/netlink/link-change.ts';
import { getLink } from '#pkg/netlink/link.ts';
import { putForwardingRequest, putNeighborRequest } from '#pkg/netlink/neighbor.ts';
import { addRouteRequest } from '#pkg/netlink/route.ts';
import { NetlinkSocket, type NetlinkRequest } from '#pkg/netlink/socket.ts';
import { podwireRouteProtocol } from '#pkg/host-network/object.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { peerOf } from './cluster.ts';

const count = Number(process.argv[2]);
using socket = new NetlinkSocket(await openSys());
const name = 'podwire.1';
createVxlan(socket, {
  name,
  vni: 1,
  port: 8472,
  local: parseAddress('192.168.0.1'),
  mac: '02:00:00:00:00:00',
  mtuBytes: 1450,
  underlayIndex: getLink(socket, 'eth0')?.index ?? 0,
  alias: 'bench',
});
const linkIndex = getLink(socket, name)?.index ?? 0;
socket.request(changeLinkRequest(name, { up: true }));
socket.request(addAddressRequest({ linkIndex, prefix: parsePrefix('10.0.0.0/32'), noDad: true }));
const requests: NetlinkRequest[][] = [[], [], []];
for (let n = 1; n < count; n++) {
  const { mac, ip, podCIDR, podNetwork } = peerOf(n);
  const gateway = parseAddress(podNetwork);
  requests[0]?.push(putNeighborRequest({ linkIndex, address: gateway, mac }));
  requests[1]?.push(putForwardingRequest({ linkIndex, mac, remote: parseAddress(ip) }));
  const destination = parsePrefix(podCIDR);
  const protocol = podwireRouteProtocol;
  requests[2]?.push(addRouteRequest({ destination, gateway, linkIndex, onLink: true, protocol }));
}
const startMs = performance.now();
for (const batch of requests) {
  for (const { error } of socket.batch(batch)) if (error !== undefined) throw error;
}
process.stdout.write(`${performance.now() - startMs}\n`);

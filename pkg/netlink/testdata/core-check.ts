/**
 * Builds a pod's network between two namespaces with the synchronous core alone, and prints what
 * the kernel then has. Run by bun.kernel.test.ts under every runtime the product uses.
 */
import { argv, stdout } from 'node:process';
import { formatPrefix, parsePrefix } from '#pkg/ip/prefix.ts';
import { parseAddress } from '#pkg/ip/address.ts';
import { addAddress, listAddresses } from '#pkg/netlink/address.ts';
import { changeLink } from '#pkg/netlink/link-change.ts';
import { createBridge, createVeth } from '#pkg/netlink/link-create.ts';
import { getLink } from '#pkg/netlink/link.ts';
import { addRouteRequest, listRoutes } from '#pkg/netlink/route.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { openNetns, withNetns } from '#pkg/netns/netns.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { readSysctl, writeSysctl } from '#pkg/sysctl/sysctl.ts';

const [, , hostPath = '', podPath = ''] = argv;
const die = (error: Error): never => {
  throw error;
};
const sys = await openSys();
using pod = openNetns(podPath);
using host = withNetns(sys, hostPath, () => new NetlinkSocket(sys), die);
const [inPod, acceptRa] = withNetns(
  sys,
  pod.fd,
  () => {
    writeSysctl('net/ipv6/conf/default/accept_ra', '0');
    return [new NetlinkSocket(sys), readSysctl('net/ipv6/conf/default/accept_ra')] as const;
  },
  die,
);
const bridge = createBridge(host, { name: 'cni0', mac: '0a:58:0a:f4:01:01' });
const veth = createVeth(host, {
  mtuBytes: 1450,
  host: { name: 'veth0', mac: '0a:58:00:00:00:01', masterIndex: bridge.index, hairpin: true },
  peer: { name: 'eth0', mac: '0a:58:0a:f4:01:05', netnsFd: pod.fd },
});
const linkIndex = veth.peerIndex ?? 0;
changeLink(inPod, linkIndex, { up: true });
for (const [own, gateway] of [
  ['10.244.1.5/24', '10.244.1.1'],
  ['fd00:10::5/64', 'fd00:10::1'],
] as const) {
  const prefix = parsePrefix(own);
  addAddress(inPod, { linkIndex, prefix, noDad: true, broadcast: prefix.length === 24 });
  const destination = parsePrefix(prefix.length === 24 ? '0.0.0.0/0' : '::/0');
  inPod.request(addRouteRequest({ destination, gateway: parseAddress(gateway) }));
}
let refusal: unknown;
try {
  createBridge(host, { name: 'cni0', mac: '0a:58:0a:f4:01:01' });
} catch (error) {
  refusal = error;
}
stdout.write(
  JSON.stringify({
    host: { hairpin: veth.hairpin, up: veth.up, mtuBytes: veth.mtuBytes, mac: veth.mac },
    pod: { running: getLink(inPod, 'eth0')?.running, mac: getLink(inPod, 'eth0')?.mac },
    addresses: listAddresses(inPod, { linkIndex })
      .map(({ prefix }) => formatPrefix(prefix))
      .filter((prefix) => !prefix.startsWith('fe80')),
    routes: (['ip', 'ip6'] as const).map(
      (family) => listRoutes(inPod, { family }).filter((r) => r.gateway !== undefined).length,
    ),
    acceptRa,
    refusal: refusal instanceof Error ? refusal.message : 'none',
  }),
);
inPod[Symbol.dispose]();

/** What somebody would type to join two nodes' pods: one device on each, and a route to one pod. */
import type { RoundCluster, RoundNode } from '#cmd/podwire-node/scratch/rounds.ts';
import { deviceDifferences } from './device-facts.ts';

export interface Handwork {
  up(): Promise<void>;
  down(): Promise<void>;
}

interface Pair {
  readonly a: RoundNode;
  readonly b: RoundNode;
  readonly mtuBytes: number;
}

/** The backend's own device for IPv4, which has a twin by hand; undefined where routes are all. */
export function deviceOf(backend: string): string | undefined {
  const devices = { vxlan: 'podwire.1', ipip: 'podwire.ipip', wireguard: 'podwire-wg' };
  return (devices as Readonly<Record<string, string>>)[backend];
}

/** The route is longer than that of the backend, so that packets take it while it is there. */
export function byHand(backend: string, pair: Pair): Handwork {
  const { a, b } = pair;
  const sides = [
    [a, b],
    [b, a],
  ] as const;
  return {
    up: async () => {
      for (const [self, peer] of sides) {
        for (const line of await linesOf(backend, { self, peer, mtuBytes: pair.mtuBytes })) {
          const [program = '', ...args] = line.split(' ');
          await self.netns.exec(program, args);
        }
      }
    },
    down: async () => {
      for (const [self, peer] of sides) {
        if (backend === 'host-gw') await self.netns.ip(`route del ${peer.pods.ip}/32`);
        else await self.netns.ip('link del hand0');
        if (backend === 'wireguard') await self.netns.exec('rm', ['-f', keyFile(self)]);
      }
    },
  };
}

/** In what the backend's device is another than its twin, a line each; the backend must be running. */
export async function unlikeByHand(
  { nodes: { a, b } }: RoundCluster,
  backend: string,
): Promise<readonly string[]> {
  const device = deviceOf(backend);
  if (device === undefined) return [];
  const hand = byHand(backend, { a, b, mtuBytes: a.nodeFile().mtuBytes });
  await hand.up();
  try {
    return await deviceDifferences(a.netns, device, 'hand0');
  } finally {
    await hand.down();
  }
}

async function linesOf(
  backend: string,
  { self, peer, mtuBytes }: { self: RoundNode; peer: RoundNode; mtuBytes: number },
): Promise<readonly string[]> {
  const [local, remote, pod] = [self.addresses.ip, peer.addresses.ip, peer.pods.ip];
  const finish = [`ip link set hand0 up mtu ${mtuBytes}`, `ip route add ${pod}/32 dev hand0`];
  switch (backend) {
    case 'host-gw':
      return [`ip route add ${pod}/32 via ${remote}`];
    case 'vxlan': {
      const mac = (node: RoundNode): string => `02:99:00:00:00:0${node.addresses.ip.at(-1)}`;
      const fixed = `dev eth0 local ${local} dstport 8473 nolearning`;
      return [
        `ip link add hand0 address ${mac(self)} type vxlan id 99 ${fixed}`,
        `ip link set hand0 up mtu ${mtuBytes}`,
        `ip neigh add 10.99.0.1 lladdr ${mac(peer)} dev hand0 nud permanent`,
        `bridge fdb append ${mac(peer)} dev hand0 dst ${remote}`,
        `ip route add ${pod}/32 via 10.99.0.1 dev hand0 onlink`,
      ];
    }
    case 'ipip':
      // Without a remote end, as ours; the link is what lets both be there.
      return [
        `ip link add hand0 type ipip mode ipip local ${local} dev eth0`,
        `ip link set hand0 up mtu ${mtuBytes}`,
        `ip route add ${pod}/32 via ${remote} dev hand0 onlink`,
      ];
    case 'wireguard':
      await publicKey(self);
      return [
        'ip link add hand0 type wireguard',
        `wg set hand0 listen-port 51899 private-key ${keyFile(self)} peer ${await publicKey(peer)} endpoint ${remote}:51899 allowed-ips ${pod}/32`,
        ...finish,
      ];
    default:
      throw new TypeError(`Cannot set up ${backend} by hand`);
  }
}

function keyFile(node: RoundNode): string {
  return `/tmp/${node.netns.name}.key`;
}

/** Makes the key when it is asked for first: of both nodes, whoever comes first. */
async function publicKey(node: RoundNode): Promise<string> {
  const script = `umask 077; test -s ${keyFile(node)} || wg genkey > ${keyFile(node)}; wg pubkey < ${keyFile(node)}`;
  const { stdout } = await node.netns.exec('sh', ['-c', script]);
  return stdout.trim();
}

/** How the nodes' kernels would send a packet to another node's pods. */
import { families, type Family } from '#pkg/ip/address.ts';
import { runIn } from './namespaces.ts';
import type { Phase } from './phase.ts';
import { nodeNames, type NodeName, type Topology } from './topology.ts';
import { waitFor, type WaitOptions } from './wait.ts';

/** Resolves once every node's way to every other node's pods is what the phase says. */
export async function pathsSettled(
  topology: Topology,
  phase: Pick<Phase, 'reachesNode3' | 'sharedL2'>,
  wait: WaitOptions,
): Promise<void> {
  const { hosts } = topology;
  for (const from of nodeNames) {
    for (const family of families) {
      const expected = nodeNames
        .filter((to) => to !== from)
        .map((to) => {
          const kind =
            hosts[from].subnet === hosts[to].subnet ? phase.sharedL2 : acrossRouter(phase);
          return `${podNetwork(to, family)} ${linkOf(kind, family)}`;
        })
        .filter((line) => !line.endsWith(' none'))
        .join(', ');
      await waitFor(`routes of ${from} to be ${expected || 'none'}`, wait, async () => {
        const routes = await podRoutes(hosts[from].namespace, from, family);
        return routes.join(', ') === expected || undefined;
      });
    }
  }
}

type PathKind = 'vxlan' | 'plain' | 'none';

function acrossRouter(phase: Pick<Phase, 'reachesNode3'>): PathKind {
  return phase.reachesNode3 ? 'vxlan' : 'none';
}

function linkOf(kind: PathKind, family: Family): string {
  if (kind === 'vxlan') return family === 'ip' ? 'podwire.1' : 'podwire-v6.1';
  return kind === 'plain' ? 'eth0' : 'none';
}

/** The nodes' podCIDRs, as deploy/demo/nodes.yaml assigns them. */
export function podNetwork(node: NodeName, family: Family): string {
  const number = node.slice('node'.length);
  return family === 'ip' ? `10.244.${number}.0/24` : `fd00:10:244:${number}::/64`;
}

/** "10.244.2.0/24 eth0" for each route to another node's pods, in order. */
async function podRoutes(namespace: string, self: NodeName, family: Family): Promise<string[]> {
  const version = family === 'ip' ? '-4' : '-6';
  const output = await runIn(namespace, ['ip', '-json', version, 'route', 'show', 'table', 'main']);
  const routes = JSON.parse(output) as { dst: string; dev: string }[];
  const others = nodeNames.filter((node) => node !== self).map((node) => podNetwork(node, family));
  return routes
    .filter(({ dst }) => others.includes(dst))
    .map(({ dst, dev }) => `${dst} ${dev}`)
    .toSorted();
}

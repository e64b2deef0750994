/** Reads a running cluster's addresses from the API and the nodes' namespaces. */
import type { Family } from '#pkg/ip/address.ts';
import type { KubeClient } from '#pkg/kube/client.ts';
import { serviceType, type ResourceType } from '#pkg/kube/resources.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { z } from 'zod';
import type { Cluster } from './cluster.ts';
import { addressesIn } from './namespaces.ts';
import { podType } from './pod-record.ts';
import type { ClusterFacts } from './probe-list.ts';
import { waitFor } from './wait.ts';
import { systemClock } from '#pkg/clock/clock.ts';

const podNames = ['client', 'echo-1', 'echo-2', 'echo-3'] as const;
const serviceNames = ['echo', 'solo', 'nobody'] as const;

const podSchema = z.object({
  status: z.object({
    phase: z.string(),
    podIPs: z.array(z.object({ ip: z.string() })).default([]),
  }),
});

const serviceSchema = z.object({
  spec: z.object({
    clusterIPs: z.array(z.string()),
    ports: z.array(z.object({ nodePort: z.number().optional() })),
  }),
});

/** Resolves once every pod of the demo runs. */
export async function waitForPods(client: KubeClient, signal: AbortSignal): Promise<void> {
  const wait = { clock: systemClock, withinMs: 60_000, signal };
  for (const name of podNames) {
    await waitFor(`running pod ${name}`, wait, async () => {
      const { status } = podSchema.parse(await read(client, podType, name, signal));
      return status.phase === 'Running' || undefined;
    });
  }
}

/** Taken anew after each change of backend: nodes then have other addresses. */
export async function readFacts(cluster: Cluster, signal: AbortSignal): Promise<ClusterFacts> {
  const { client, topology } = cluster;
  const { hosts } = topology;
  const pods = new Map<string, readonly string[]>();
  for (const name of podNames) {
    const { status } = podSchema.parse(await read(client, podType, name, signal));
    pods.set(
      name,
      status.podIPs.map(({ ip }) => ip),
    );
  }
  const services = new Map<string, z.output<typeof serviceSchema>['spec']>();
  for (const name of serviceNames) {
    services.set(name, serviceSchema.parse(await read(client, serviceType, name, signal)).spec);
  }
  return {
    nodeAddresses: {
      node1: await addressesIn(hosts.node1.namespace),
      node2: await addressesIn(hosts.node2.namespace),
      node3: await addressesIn(hosts.node3.namespace),
    },
    nodeIP: (node, family) => hosts[node][family],
    podIP: (pod, family) => ofFamily(pods.get(pod), family, `pod ${pod}`),
    clusterIP: (name, family) =>
      ofFamily(services.get(name)?.clusterIPs, family, `Service ${name}`),
    nodePort: services.get('echo')?.ports[0]?.nodePort ?? 0,
    outsideIP: (family) => hosts.outside[family],
  };
}

function ofFamily(addresses: readonly string[] | undefined, family: Family, what: string): string {
  const address = addresses?.find((a) => a.includes(':') === (family === 'ip6'));
  if (address !== undefined) return address;
  throw new AgentError(
    'NoAddress',
    `Cannot probe ${what}: it has no ${family === 'ip' ? 'IPv4' : 'IPv6'} address`,
  );
}

function read(
  client: KubeClient,
  type: ResourceType,
  name: string,
  signal: AbortSignal,
): Promise<unknown> {
  return client.get({ type, namespace: 'default', name }, signal);
}

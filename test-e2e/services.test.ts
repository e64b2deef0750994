import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { agentSocket, callFrom, podAgent, startStream } from '#cmd/podwire/demo/agent-client.ts';
import { runIn } from '#cmd/podwire/demo/namespaces.ts';
import { podType } from '#cmd/podwire/demo/pod-record.ts';
import { rows } from '#cmd/podwire/demo/probe-list.ts';
import { nodeNames, type NodeName } from '#cmd/podwire/demo/topology.ts';
import { families, type Family } from '#pkg/ip/address.ts';
import { serviceType } from '#pkg/kube/resources.ts';
import { eventually, startTestCluster, type TestCluster } from '#test/test-cluster.ts';

const signal = new AbortController().signal;
const serviceRows = [rows.clusterIP, rows.nodeClusterIP, rows.hairpin, rows.nodePort];
const client = podAgent('default', 'client');

let test: TestCluster;

beforeAll(async () => {
  test = await startTestCluster({ backend: 'vxlan', directRouting: true });
  expect(await test.problems(...serviceRows)).toEqual([]);
});
afterAll(() => test?.[Symbol.asyncDispose]());

describe('a Service', () => {
  it.each(families)('spreads connections evenly over its endpoints (%s)', async (family) => {
    const counts = new Map<string, number>();
    const calls = 300;
    for (let i = 0; i < calls; i++) {
      const server = await serverOf(clusterIP('echo', family), 20_000);
      counts.set(server, (counts.get(server) ?? 0) + 1);
    }
    expect([...counts.keys()].toSorted()).toEqual(['echo-1', 'echo-2', 'echo-3']);
    // 100 each; five standard deviations (8.2) away: one false alarm in a million runs.
    for (const count of counts.values()) expect(Math.abs(count - calls / 3)).toBeLessThan(41);
  });

  it('gains an endpoint with a pod and loses it with the pod', async () => {
    await createPod('echo-4', 'node2', { app: 'echo' });
    await eventually('an answer from echo-4', async () => (await serversOf('echo')).has('echo-4'));
    await test.cluster.client.delete(podRef('echo-4'), signal);
    await eventually('none from echo-4', async () => {
      const seen = await serversOf('echo');
      return seen.size === 3 && !seen.has('echo-4') && !seen.has('nobody answered');
    });
    expect(await test.problems(...serviceRows)).toEqual([]);
  });

  it('without endpoints gets its first, and refuses again when it is gone', async () => {
    await createPod('late', 'node3', { app: 'nobody' });
    await eventually(
      'an answer',
      async () => (await serverOf(clusterIP('nobody', 'ip6'))) === 'late',
    );
    await test.cluster.client.delete(podRef('late'), signal);
    expect(await test.problems(rows.noEndpoints)).toEqual([]);
  });

  it('that is deleted leaves no rule behind', async () => {
    await test.cluster.client.create(
      { type: serviceType, namespace: 'default' },
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: 'short-lived', namespace: 'default' },
        spec: { selector: { app: 'echo' }, ports: [{ port: 81, targetPort: 8080 }] },
      },
      signal,
    );
    await eventually('its rules', async () =>
      (await rulesOf('node3')).includes('default/short-lived'),
    );
    const ref = { type: serviceType, namespace: 'default', name: 'short-lived' };
    await test.cluster.client.delete(ref, signal);
    await eventually('none on any node', async () => {
      const rules = await Promise.all(nodeNames.map(rulesOf));
      return !rules.some((text) => text.includes('default/short-lived'));
    });
  });
});

describe('rules that were deleted by hand come back', () => {
  it.each([
    ['the jump to our rules', ['iptables', '-t', 'nat', '-F', 'PREROUTING']],
    ['the dispatch of all Services', ['iptables', '-t', 'nat', '-F', 'KUBE-SERVICES']],
    ['everything of IPv6', ['nft', 'flush', 'table', 'ip6', 'nat']],
  ] as const)('%s', async (_what, command) => {
    // What a test before this one changed has reached this node by now: the test above waits for it.
    const before = await rulesOf('node1');
    const repaired = repairs('node1');
    const [file, ...args] = command;
    await runIn(namespaceOf('node1'), [file, ...args]);
    // To look whether they are gone would be a race with the proxy.
    await eventually('a repair', () => repairs('node1') > repaired);
    await eventually('the rules as before', async () => (await rulesOf('node1')) === before);
    for (const family of families) expect(await lastOfDispatch(family)).toContain('KUBE-NODEPORTS');
    expect(await test.problems(...serviceRows)).toEqual([]);
  });
});

describe('podwire-proxy killed and started again', () => {
  it.each(families)('breaks no connection and loses no packet (%s)', async (family) => {
    const streams = await Promise.all(
      (['tcp', 'udp'] as const).map((protocol) =>
        startStream(agentSocket(test.cluster.run.path, client), {
          protocol,
          address: test.facts.clusterIP('echo', family),
          port: 80,
          intervalMs: 20,
        }),
      ),
    );
    const written = (): number => rulesWritten('node1');
    const daemon = test.cluster.proxyDaemon('node1');
    const before = written();
    process.kill(daemon.program().pid, 'SIGKILL');
    await daemon.program().ended;
    daemon.start();
    await eventually('the new one at work', () => written() > before);
    for (const outcome of await Promise.all(streams.map((stream) => stream.stop()))) {
      expect(outcome.error).toBeUndefined();
      expect(outcome.answered).toBe(outcome.sent);
      expect(outcome.sent).toBeGreaterThan(10);
    }
    expect(await test.problems(...serviceRows)).toEqual([]);
  });
});

/** How often the proxy of a node has found its world complete and set to work. */
function rulesWritten(node: NodeName): number {
  const { logPath } = test.cluster.proxyDaemon(node).program();
  return readFileSync(logPath, 'utf8').split('"Services are known"').length - 1;
}

/** How often the proxy of a node has found rules other than they should be. */
function repairs(node: NodeName): number {
  const { logPath } = test.cluster.proxyDaemon(node).program();
  const lines = readFileSync(logPath, 'utf8').split('\n');
  return lines.filter((line) => /"chains":[1-9].*"All rules compared"/.test(line)).length;
}

function clusterIP(service: string, family: Family): { address: string; port: number } {
  return { address: test.facts.clusterIP(service, family), port: 80 };
}

/**
 * Who answers a new connection of the client pod.
 *
 * @param timeoutMs little for who asks again
 */
async function serverOf(
  target: { address: string; port: number },
  timeoutMs = 1000,
): Promise<string> {
  const socket = agentSocket(test.cluster.run.path, client);
  const outcome = await callFrom(socket, { protocol: 'tcp', ...target, timeoutMs });
  return outcome.ok ? outcome.server : 'nobody answered';
}

/** Who answers 40 new connections: with four endpoints, each is among them but once in 100,000. */
async function serversOf(service: string): Promise<Set<string>> {
  const servers = new Set<string>();
  for (let i = 0; i < 40; i++) servers.add(await serverOf(clusterIP(service, 'ip')));
  return servers;
}

function createPod(name: string, node: NodeName, labels: Record<string, string>): Promise<unknown> {
  return test.cluster.client.create(
    { type: podType, namespace: 'default' },
    {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, namespace: 'default', labels },
      spec: {
        nodeSelector: { 'kubernetes.io/hostname': node },
        containers: [{ name: 'echo', image: 'any', ports: [{ containerPort: 8080 }] }],
      },
    },
    signal,
  );
}

function podRef(name: string): { type: typeof podType; namespace: string; name: string } {
  return { type: podType, namespace: 'default', name };
}

function namespaceOf(node: NodeName): string {
  return test.cluster.topology.hosts[node].namespace;
}

/** The last rule of the chain that finds Services. */
async function lastOfDispatch(family: Family): Promise<string> {
  const command = family === 'ip' ? 'iptables-save' : 'ip6tables-save';
  const saved = await runIn(namespaceOf('node1'), [command, '-t', 'nat']);
  return saved.split('\n').findLast((line) => line.startsWith('-A KUBE-SERVICES ')) ?? '';
}

/**
 * The rules of both families, without counters and times. Sorted: Services come and go at the head of
 * the chains they share, and what is put back is written in the order of their names.
 */
async function rulesOf(node: NodeName): Promise<string> {
  const saved = await Promise.all(
    ['iptables-save', 'ip6tables-save'].map((command) => runIn(namespaceOf(node), [command])),
  );
  return saved
    .flatMap((text) => text.split('\n'))
    .filter((line) => !line.startsWith('#'))
    .map((line) => line.replace(/ \[\d+:\d+\]$/, ''))
    .toSorted((a, b) => (a < b ? -1 : 1))
    .join('\n');
}

/**
 * What becomes of packets to Services, whatever the mode: tests of one family, for who has written
 * `packetServices` on the node of a small cluster.
 */
import { expect, it } from 'vitest';
import type { Family } from '#pkg/ip/address.ts';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import type { AskRequest } from './agent.ts';
import { nets, nodePorts, numbers } from './packet-services.ts';
import type { SmallCluster } from './small-cluster.ts';

/** In what modes differ on purpose. */
export interface ModeTraits {
  /** Node ports answer on 127.0.0.1. */
  readonly servesLocalhost: boolean;
  /** With external policy Local and endpoints here, pods and the node get those only, too. */
  readonly localForAll: boolean;
  /** Connections after which each of two endpoints has had one. */
  readonly attempts: number;
  /** How long an answer may take; the machine may be an emulated one. */
  readonly patienceMs: number;
}

/** @param small asked for when the tests run */
export function testServicePackets(
  family: Family,
  small: () => SmallCluster,
  traits: ModeTraits,
): void {
  /** The answers without doubles, sorted. */
  const seen = async (from: ScratchNetns, to: AskRequest): Promise<string[]> => {
    const answers = await small().connect(from, { timeoutMs: traits.patienceMs, ...to });
    return [...new Set(answers)].toSorted();
  };
  const { balancer, blocked, gateway, loopback, node, outside, pod, vip } = nets[family];
  const clusterIP = (name: keyof typeof numbers): AskRequest => ({
    host: `${vip}${numbers[name]}`,
    port: 80,
    count: traits.attempts,
  });
  const external = (name: keyof typeof numbers): AskRequest => ({
    host: `${balancer}${numbers[name]}`,
    port: 80,
    count: traits.attempts,
  });
  const nodePort = (port: number, host: string = node): AskRequest => ({
    host,
    port,
    count: traits.attempts,
  });
  const once = { count: 1, timeoutMs: 200 };
  /** What pods and the node see of a Service of external policy Local with an endpoint here. */
  const within = <T>(answers: readonly T[]): readonly T[] =>
    traits.localForAll ? answers.slice(0, 1) : answers;
  const client = [`one ${pod(1)}`, `two ${pod(1)}`];
  const masqueraded = [`one ${gateway(2)}`, `two ${gateway(3)}`];

  it('S1. S144. a pod reaches both endpoints, keeping its own address', async () => {
    const count = 3 * traits.attempts;
    const answers = await small().connect(small().client, { ...clusterIP('both'), count });
    expect([...new Set(answers)].toSorted()).toEqual(client);
    // 60 fair choices leave fewer than 10 for one side once in 30 million runs.
    const ofOne = answers.filter((answer) => answer === client[0]).length;
    expect(Math.min(ofOne, count - ofOne)).toBeGreaterThanOrEqual(count / 6);
  });

  it('S55. S144. the node and an outsider reach them masqueraded', async () => {
    expect(await seen(small().node, clusterIP('both'))).toEqual(masqueraded);
    expect(await seen(small().outside, clusterIP('both'))).toEqual(masqueraded);
  });

  it('S7. S10. S12. S149. without endpoints a connection is refused, not left waiting', async () => {
    const inside = [clusterIP('none'), nodePort(nodePorts.none)];
    const flows = [
      ...inside.map((to) => [small().node, to] as const),
      ...[...inside, external('none')].flatMap((to) => [
        [small().client, to] as const,
        [small().outside, to] as const,
      ]),
    ];
    // An ICMPv6 error that comes back within connect(2), as it does here, counts only the next time,
    // a second later.
    const ask = { count: 1, timeoutMs: traits.patienceMs };
    const answers = flows.map(([from, to]) => seen(from, { ...to, ...ask }));
    expect(await Promise.all(answers)).toEqual(flows.map(() => ['ECONNREFUSED']));
  });

  it('S18. S143. a pod reaches itself, seeing the node as the client', async () => {
    expect(await seen(small().servers[0], clusterIP('self'))).toEqual([`one ${gateway(2)}`]);
    expect(await seen(small().client, clusterIP('self'))).toEqual([`one ${pod(1)}`]);
  });

  it('S37. a node port answers on every address of the node, masqueraded', async () => {
    for (const from of [small().outside, small().client, small().node]) {
      expect(await seen(from, nodePort(nodePorts.both))).toEqual(masqueraded);
    }
    const other = nodePort(nodePorts.both, gateway(1));
    expect(await seen(small().outside, other)).toEqual(masqueraded);
  });

  it('S37. S42. a node port answers on 127.0.0.1, and never on ::1', async () => {
    const answers = await seen(small().node, nodePort(nodePorts.both, loopback));
    const isServed = family === 'ip' && traits.servesLocalhost;
    expect(answers).toEqual(isServed ? masqueraded : ['ECONNREFUSED']);
  });

  it('S19. an external address that no host has is served', async () => {
    for (const from of [small().outside, small().client, small().node]) {
      expect(await seen(from, external('outside'))).toEqual(masqueraded);
    }
  });

  it('S60. S66. S151. internal Local leads to endpoints here, or nowhere', async () => {
    expect(await seen(small().client, clusterIP('internal'))).toEqual([`one ${pod(1)}`]);
    expect(await seen(small().node, clusterIP('internal'))).toEqual([`one ${gateway(2)}`]);
    const far = { ...clusterIP('internalFar'), ...once };
    const answers = [small().client, small().node].map((from) => seen(from, far));
    expect(await Promise.all(answers)).toEqual([['TIMEOUT'], ['TIMEOUT']]);
  });

  it('S56. S57. S58. external Local: outsiders keep their address, pods reach all', async () => {
    for (const to of [external('external'), nodePort(nodePorts.external)]) {
      expect(await seen(small().outside, to)).toEqual([`one ${outside}`]);
      expect(await seen(small().client, to)).toEqual(within(client));
      expect(await seen(small().node, to)).toEqual(within(masqueraded));
    }
  });

  it('S64. external Local without an endpoint here drops outsiders, not pods', async () => {
    const targets = [external('externalFar'), nodePort(nodePorts.externalFar)];
    const answers = targets.map((to) => seen(small().outside, { ...to, ...once }));
    expect(await Promise.all(answers)).toEqual([['TIMEOUT'], ['TIMEOUT']]);
    for (const to of targets) {
      expect(await seen(small().client, to)).toEqual([`two ${pod(1)}`]);
      expect(await seen(small().node, to)).toEqual([`two ${gateway(3)}`]);
    }
  });

  it('S24. S25. S26. source ranges admit whom they hold', async () => {
    const to = external('ranges');
    expect(await seen(small().outside, to)).toEqual(masqueraded);
    const fromBlocked = seen(small().outside, { ...to, ...once, sources: [blocked] });
    const fromPod = seen(small().client, { ...to, ...once });
    expect(await Promise.all([fromBlocked, fromPod])).toEqual([['TIMEOUT'], ['TIMEOUT']]);
    expect(await seen(small().client, clusterIP('ranges'))).toEqual(client);
  });

  it('S73. terminating endpoints that serve are used when no other is left', async () => {
    expect(await seen(small().client, clusterIP('ending'))).toEqual([`one ${pod(1)}`]);
  });

  it('S14. UDP has the same number as TCP, and is served on its own', async () => {
    const udp = { protocol: 'udp' } as const;
    expect(await seen(small().client, { ...clusterIP('datagrams'), ...udp })).toEqual(client);
    const to = { ...nodePort(nodePorts.datagrams), ...udp };
    expect(await seen(small().outside, to)).toEqual(masqueraded);
  });

  it('S13. S154. pods have target ports of their own', async () => {
    expect(await seen(small().client, clusterIP('targets'))).toEqual(client);
  });

  it('S148. with affinity a client stays with its endpoint', async () => {
    expect(await seen(small().client, clusterIP('sticky'))).toHaveLength(1);
  });

  it('pods that are not addressed through a Service see the client itself', async () => {
    const to = { host: pod(2), port: 8080 };
    expect(await small().connect(small().outside, to)).toEqual([`one ${outside}`]);
  });
}

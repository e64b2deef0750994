import { describe, expect, test } from 'vitest';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import type { KubeClient } from '#pkg/kube/client.ts';
import { objectPath } from '#pkg/kube/resources.ts';
import { createOwnNode } from './own-node.ts';

const clock = new FakeClock(Date.parse('2026-03-01T10:20:30.456Z'));
const { signal } = new AbortController();

/** A server whose Node has these conditions; `sent` is what it was asked. */
function server(conditions: readonly object[]): {
  client: Pick<KubeClient, 'get' | 'patch'>;
  sent: unknown[][];
} {
  const sent: unknown[][] = [];
  const client: Pick<KubeClient, 'get' | 'patch'> = {
    get: (ref) => {
      sent.push(['get', objectPath(ref)]);
      return Promise.resolve({ status: { conditions } });
    },
    patch: (ref, patch) => {
      sent.push([patch.kind, objectPath(ref), patch.body]);
      return Promise.resolve({});
    },
  };
  return { client, sent };
}

describe('createOwnNode()', () => {
  test('annotates through the status subresource, null removes', async () => {
    const { client, sent } = server([]);
    await createOwnNode(client, 'a', clock).annotate({ 'x/y': '1', 'x/z': null }, signal);
    expect(sent).toEqual([
      [
        'strategic',
        '/api/v1/nodes/a/status',
        { metadata: { annotations: { 'x/y': '1', 'x/z': null } } },
      ],
    ]);
  });

  test.each([
    ['has none', []],
    ['says the network is away', [{ type: 'NetworkUnavailable', status: 'True' }]],
    ['says so without a time', [{ type: 'NetworkUnavailable', status: 'False', reason: 'x' }]],
  ])('sets the condition when the Node %s', async (_, conditions) => {
    const { client, sent } = server(conditions);
    await createOwnNode(client, 'a', clock).reportNetworkUp(signal);
    expect(sent[1]?.[2]).toEqual({
      status: {
        conditions: [
          {
            type: 'NetworkUnavailable',
            status: 'False',
            reason: 'PodwireIsUp',
            message: 'Podwire is running on this node',
            lastHeartbeatTime: '2026-03-01T10:20:30Z',
            lastTransitionTime: '2026-03-01T10:20:30Z',
          },
        ],
      },
    });
  });

  test('takes the condition over from another agent, which is no transition', async () => {
    const lastTransitionTime = '2025-01-01T00:00:00Z';
    const theirs = { type: 'NetworkUnavailable', status: 'False', reason: 'FlannelIsUp' };
    const { client, sent } = server([{ ...theirs, lastTransitionTime }]);
    await createOwnNode(client, 'a', clock).reportNetworkUp(signal);
    expect(sent[1]?.[2]).toMatchObject({
      status: { conditions: [{ reason: 'PodwireIsUp', lastTransitionTime }] },
    });
  });

  test.each(['annotate', 'reportNetworkUp'] as const)('%s gives up after 5 s', async (name) => {
    const silent = new FakeClock();
    const stuck = (_: unknown, given: AbortSignal): Promise<never> =>
      new Promise((_resolve, reject) => {
        given.addEventListener('abort', () => reject(given.reason));
      });
    const client = { get: stuck, patch: (...args: unknown[]) => stuck(0, args[2] as AbortSignal) };
    const own = createOwnNode(client, 'a', silent);
    let error: unknown;
    const done =
      name === 'annotate' ? own.annotate({ x: '1' }, signal) : own.reportNetworkUp(signal);
    void done.catch((caught: unknown) => (error = caught));
    await silent.advance(4_999);
    expect(error).toBeUndefined();
    await silent.advance(1);
    expect(error).toMatchObject({ code: 'NodeNotWritten' });
  });

  test('writes nothing when the condition is there', async () => {
    const { client, sent } = server([
      { type: 'NetworkUnavailable', status: 'False', reason: 'PodwireIsUp' },
    ]);
    await createOwnNode(client, 'a', clock).reportNetworkUp(signal);
    expect(sent).toEqual([['get', '/api/v1/nodes/a']]);
  });
});

import { describe, expect, test } from 'vitest';
import type { KubeClient } from '#pkg/kube/client.ts';
import { objectPath } from '#pkg/kube/resources.ts';
import { createOwnNode } from './own-node.ts';

const clock = { now: () => Date.parse('2026-03-01T10:20:30.456Z'), sleep: () => Promise.resolve() };
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
    ['has another’s', [{ type: 'NetworkUnavailable', status: 'False', reason: 'FlannelIsUp' }]],
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

  test('writes nothing when the condition is there', async () => {
    const { client, sent } = server([
      { type: 'NetworkUnavailable', status: 'False', reason: 'PodwireIsUp' },
    ]);
    await createOwnNode(client, 'a', clock).reportNetworkUp(signal);
    expect(sent).toEqual([['get', '/api/v1/nodes/a']]);
  });
});

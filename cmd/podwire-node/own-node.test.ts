import { describe, expect, test } from 'vitest';
import { createOwnNode, type ApiRequest } from './own-node.ts';

const clock = { now: () => Date.parse('2026-03-01T10:20:30.456Z'), sleep: () => Promise.resolve() };
const { signal } = new AbortController();

interface Sent {
  readonly path: string;
  readonly method: string;
  readonly type: string | undefined;
  readonly body: unknown;
}

/** A server that holds these conditions; `sent` is what it was asked. */
function server(conditions: readonly object[]): { request: ApiRequest; sent: Sent[] } {
  const sent: Sent[] = [];
  const request: ApiRequest = (path, { method, headers, body }) => {
    const type = headers?.['content-type'];
    sent.push({ path, method, type, body: body === undefined ? undefined : JSON.parse(body) });
    return Promise.resolve({ status: { conditions } });
  };
  return { request, sent };
}

describe('createOwnNode()', () => {
  test('annotates through the status subresource, null removes', async () => {
    const { request, sent } = server([]);
    await createOwnNode(request, 'a', clock).annotate({ 'x/y': '1', 'x/z': null }, signal);
    expect(sent).toEqual([
      {
        path: '/api/v1/nodes/a/status',
        method: 'PATCH',
        type: 'application/strategic-merge-patch+json',
        body: { metadata: { annotations: { 'x/y': '1', 'x/z': null } } },
      },
    ]);
  });

  test.each([
    ['has none', []],
    ['says the network is away', [{ type: 'NetworkUnavailable', status: 'True' }]],
    ['has another’s', [{ type: 'NetworkUnavailable', status: 'False', reason: 'FlannelIsUp' }]],
  ])('sets the condition when the Node %s', async (_, conditions) => {
    const { request, sent } = server(conditions);
    await createOwnNode(request, 'a', clock).reportNetworkUp(signal);
    expect(sent[1]?.body).toEqual({
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
    const { request, sent } = server([
      { type: 'NetworkUnavailable', status: 'False', reason: 'PodwireIsUp' },
    ]);
    await createOwnNode(request, 'a', clock).reportNetworkUp(signal);
    expect(sent.map(({ method }) => method)).toEqual(['GET']);
  });
});

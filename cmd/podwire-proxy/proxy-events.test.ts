import { expect, it } from 'vitest';
import type { EventReport } from '#pkg/kube/events.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { createProxyEvents } from './proxy-events.ts';

const meta = (
  name: string,
): { namespace: string; name: string; uid: string; resourceVersion: string } => ({
  namespace: 'ns',
  name,
  uid: `uid-${name}`,
  resourceVersion: '1',
});

it('posts one Event after the other, about the Node and about bad objects, whatever fails', async () => {
  const posted: EventReport[] = [];
  let isPosting = false;
  const events = createProxyEvents(
    {
      recorder: {
        record: async (report) => {
          expect(isPosting).toBe(false);
          isPosting = true;
          await Promise.resolve();
          isPosting = false;
          posted.push(report);
          if (report.reason === 'Starting') throw new Error('no server');
          return true;
        },
      },
      nodeName: 'node-one',
      services: { get: (key) => (key === 'ns/web' ? meta('web') : undefined) },
      slices: { get: (key) => (key === 'ns/web-1' ? meta('web-1') : undefined) },
      log: silentLogger,
    },
    new AbortController().signal,
  );
  events.ofNode({ type: 'Normal', reason: 'Starting', message: '' });
  events.ofProblem({ kind: 'Service', object: 'ns/web', problem: 'bad address' });
  events.ofProblem({ kind: 'EndpointSlice', object: 'ns/web-1', problem: 'bad endpoint' });
  events.ofProblem({ kind: 'Service', object: 'ns/web', problem: 'port taken' }, 'FailedToStart');
  events.ofProblem({ kind: 'Service', object: 'ns/gone', problem: 'nobody reads this' });
  await events.settled();
  expect(
    posted.map(({ message, reason, target, type }) => [
      target.type.kind,
      target.name,
      target.uid,
      type,
      reason,
      message,
    ]),
  ).toEqual([
    ['Node', 'node-one', 'node-one', 'Normal', 'Starting', ''],
    ['Service', 'web', 'uid-web', 'Warning', 'CannotServe', 'bad address'],
    ['EndpointSlice', 'web-1', 'uid-web-1', 'Warning', 'CannotServe', 'bad endpoint'],
    ['Service', 'web', 'uid-web', 'Warning', 'FailedToStart', 'port taken'],
  ]);
});

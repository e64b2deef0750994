import { expect, it } from 'vitest';
import { parseNetworkConfig } from '#pkg/cni/config.ts';
import { collectAll } from './collect-all.ts';

function collect(fields: object, failing: readonly string[]): readonly string[] {
  const done: string[] = [];
  const config = parseNetworkConfig(
    JSON.stringify({ cniVersion: '1.1.0', name: 'pods', ...fields }),
  );
  const request = { containerId: '', ifName: '', netns: undefined, args: '', path: [] };
  const parts = ['links', 'rules', 'leases'].map((part) => (): void => {
    done.push(part);
    if (failing.includes(part)) throw new Error(`no ${part}`);
  });
  try {
    collectAll({ ...request, config, environment: {} }, parts);
  } catch (error) {
    done.push(String(error));
    if (error instanceof AggregateError) done.push(...error.errors.map(String));
  }
  return done;
}

const all = { 'cni.dev/valid-attachments': [] };

it.each([
  ['does all', [], []],
  ['goes on after an error', ['rules'], ['Error: no rules']],
  [
    'tells of all errors',
    ['links', 'leases'],
    [
      'AggregateError: Cannot collect garbage of network pods',
      'Error: no links',
      'Error: no leases',
    ],
  ],
])('%s', (_, failing, errors) => {
  expect(collect(all, failing)).toEqual(['links', 'rules', 'leases', ...errors]);
});

it('does nothing where nobody says what to keep', () => {
  expect(collect({}, [])).toEqual([expect.stringContaining('cni.dev/valid-attachments')]);
});

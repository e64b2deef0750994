import { afterEach, expect, test } from 'vitest';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import type { CommandRunner } from '#pkg/iptables/detect.ts';
import { packetFilterRulesets } from '#pkg/pod-network/packet-filter.ts';
import { openNodeSys } from '#pkg/sys/node-ffi.ts';
import { IptablesDriver } from './packet-filter-driver.ts';

const { signal } = new AbortController();
const silent = (): void => undefined;
const log = { debug: silent, info: silent, warn: silent, error: silent };
const want = packetFilterRulesets({
  ownPodCIDRs: [parsePrefix('10.244.1.0/24')],
  forward: true,
  masquerade: undefined,
});

let driver: IptablesDriver;
afterEach(() => driver[Symbol.dispose]());

/** The legacy filter, whose rules are gone each time somebody looks; it tells of no change. */
function driverFor(onCall: (program: string) => void): IptablesDriver {
  const run: CommandRunner = (file, args) => {
    onCall(file);
    if (!file.startsWith('iptables-legacy')) {
      return Promise.reject(new AgentError('CommandMissing', `Cannot run ${file}`));
    }
    const version = args.includes('--version') ? 'iptables v1.8.9 (legacy)' : '';
    const [, table] = args;
    return Promise.resolve({ stdout: version || `*${table}\nCOMMIT\n`, stderr: '' });
  };
  return new IptablesDriver({ run, sys: openNodeSys(), log, onChange: silent });
}

test('a doubt that comes while rules are read or written stands', async () => {
  const calls: string[] = [];
  let doubtsAt = 'iptables-legacy-restore';
  driver = driverFor((program) => {
    calls.push(program);
    if (program === doubtsAt) driver.doubt();
  });
  expect(await driver.converge(want, signal)).not.toEqual([]);
  doubtsAt = 'iptables-legacy-save';
  expect(await driver.converge(want, signal)).not.toEqual([]);
  doubtsAt = '';
  expect(await driver.converge(want, signal)).not.toEqual([]);
  const before = calls.length;
  expect(await driver.converge(want, signal)).toEqual([]);
  expect(calls).toHaveLength(before);
});

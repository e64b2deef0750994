import { describe, expect, it } from 'vitest';
import { proxyConfig } from '#pkg/config/proxy-config.ts';
import { AgentError, messageOf } from '#pkg/errors/agent-error.ts';
import type { runCommand } from '#pkg/exec/run.ts';
import { setTimeouts } from '#pkg/ipvs/apply.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { IptablesTool } from '#pkg/iptables/detect.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';
import {
  initializeIpvs,
  ipvsSysctls,
  requireIpvs,
  requireSetRules,
  timeoutSeconds,
} from './ipvs-support.ts';

const signal = AbortSignal.timeout(60_000);

type Options = Parameters<typeof runCommand>[2];

/** Keeps what it was called with, and fails where `refused` matches the call. */
function runner(refused?: RegExp) {
  const calls: string[] = [];
  const run = (async (file: string, args: readonly string[], { input = '' }: Options) => {
    const call = [file, ...args, ...input.split('\n')].join(' ').trim();
    calls.push(call);
    if (refused?.test(call) === true) throw new AgentError('CommandFailed', 'refused');
    return { stdout: '', stderr: '' };
  }) as typeof runCommand;
  return { calls, run };
}

const config = (fields: object) =>
  proxyConfig({
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    kind: 'KubeProxyConfiguration',
    mode: 'ipvs',
    ipvs: fields as never,
  }).ipvs;

describe('ipvsSysctls()', () => {
  const always: [string, string][] = [
    ['net/ipv4/vs/conntrack', '1'],
    ['net/ipv4/vs/expire_nodest_conn', '1'],
    ['net/ipv4/vs/expire_quiescent_template', '1'],
    ['net/ipv4/ip_forward', '1'],
  ];
  const reuse: [string, string][] = [['net/ipv4/vs/conn_reuse_mode', '0']];
  const strict: [string, string][] = [
    ['net/ipv4/conf/all/arp_ignore', '1'],
    ['net/ipv4/conf/all/arp_announce', '2'],
  ];

  it.each([
    ['3.10.0-1160.el7.x86_64', false, always],
    ['4.1.0', false, [...always, ...reuse]],
    ['5.8.18-generic', false, [...always, ...reuse]],
    // Not "5.1".
    ['5.10.0-8-amd64', false, always],
    ['6.1.0-57-amd64', true, [...always, ...strict]],
  ])('of kernel %s, strict ARP %s', (kernel, strictARP, expected) => {
    const settings = ipvsSysctls({ strictARP }, kernel);
    expect(Object.fromEntries(settings)).toEqual(Object.fromEntries(expected));
  });
});

describe('timeouts', () => {
  it.each([
    [{}, []],
    [{ tcpTimeout: 900_000 }, ['ipvsadm --set 900 0 0']],
    [{ tcpTimeout: 1_000, tcpFinTimeout: 60_000, udpTimeout: 2_500 }, ['ipvsadm --set 1 60 3']],
    // Less than a second is not "as it is".
    [{ udpTimeout: 300 }, ['ipvsadm --set 0 0 1']],
  ])('%j', async (fields, expected) => {
    const { calls, run } = runner();
    await setTimeouts(run, timeoutSeconds(config(fields)), signal);
    expect(calls).toEqual(expected);
  });
});

it('--init-only makes no settings of IPVS where there is none', async () => {
  const { run } = runner(/ipvsadm --list/);
  expect(await initializeIpvs({ run, log: silentLogger }, config({}), signal)).toEqual([]);
});

describe('requireSetRules()', () => {
  const tool = (run: typeof runCommand, family: Family): IptablesTool => ({
    family,
    backend: 'nf_tables',
    version: '1.8.9',
    save: 'x-save',
    restore: 'x-restore',
    randomFully: true,
    run,
  });

  it.each([
    ['ip', 'inet'],
    ['ip6', 'inet6'],
  ] as const)('tries a rule that asks a set, and leaves nothing: %s', async (family, word) => {
    const { calls, run } = runner();
    await requireSetRules(run, tool(run, family), signal);
    expect(calls).toEqual([
      `ipset restore -exist create PODWIRE-TRIAL-${family} hash:ip family ${word}`,
      'x-restore --noflush -w 5 *filter :PODWIRE-TRIAL - [0:0] ' +
        `-A PODWIRE-TRIAL -m set --match-set PODWIRE-TRIAL-${family} dst -j RETURN COMMIT ` +
        '*filter -F PODWIRE-TRIAL -X PODWIRE-TRIAL COMMIT',
      `ipset destroy PODWIRE-TRIAL-${family}`,
    ]);
  });

  it('says what is missing, and takes the set away', async () => {
    const { calls, run } = runner(/x-restore/);
    const error = await requireSetRules(run, tool(run, 'ip'), signal).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: 'IpvsUnusable' });
    expect(messageOf(error)).toContain(
      'Cannot use IPVS here: no rules of x-restore that ask sets (kernel module xt_set)',
    );
    expect(calls.at(-1)).toBe('ipset destroy PODWIRE-TRIAL-ip');
  });
});

describe('requireIpvs()', () => {
  const withoutDummy = {
    dump: () => {
      throw new AgentError('EOPNOTSUPP', 'no dummy');
    },
  } as unknown as NetlinkSocket;
  const mh = { scheduler: 'mh', schedulerFlags: 'mh-port' };

  it.each([
    [/ipvsadm --list/, 'no virtual servers (kernel module ip_vs, program ipvsadm)'],
    [/ipvsadm -A .* -s mh -b mh-port$/, 'no scheduler mh -b mh-port (kernel module ip_vs_mh)'],
    [/hash:ip,port,net/, 'no sets of type hash:ip,port,net (kernel module ip_set, program ipset)'],
    [undefined, 'no dummy devices (kernel module dummy)'],
  ])('says what is missing: %s', async (refused, missing) => {
    const { run } = runner(refused);
    const failed = requireIpvs({ run, socket: withoutDummy }, mh, signal);
    const error = await failed.catch((cause: unknown) => cause);
    expect(error).toMatchObject({ code: 'IpvsUnusable' });
    expect(messageOf(error)).toContain(`Cannot use IPVS here: ${missing}`);
  });

  it('leaves no trial behind', async () => {
    const { calls, run } = runner();
    await requireIpvs({ run, socket: withoutDummy }, mh, signal).catch(() => undefined);
    const trial = '-t 198.51.100.0:20000';
    expect(calls.filter((call) => call.includes(trial))).toEqual([
      // What a process that died here left.
      `ipvsadm -D ${trial}`,
      `ipvsadm -A ${trial} -s mh -b mh-port`,
      `ipvsadm -D ${trial}`,
    ]);
    const [leftover, sets = ''] = calls.filter((call) => call.startsWith('ipset'));
    expect(leftover).toBe('ipset destroy PODWIRE-TRIAL');
    expect(sets.match(/create PODWIRE-TRIAL/g)).toHaveLength(5);
    expect(sets.match(/destroy PODWIRE-TRIAL/g)).toHaveLength(5);
  });
});

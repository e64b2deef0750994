/** `--init-only` of mode ipvs, which then runs where /proc/sys may not be written. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { openNetns, openOwnNetns } from '#pkg/netns/netns.ts';
import { createScratchNetns } from '#pkg/netns/scratch.ts';
import { CLONE_NEWNET } from '#pkg/sys/constants.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { readSysctl, writeSysctl } from '#pkg/sysctl/sysctl.ts';
import { main } from './main.ts';

it('makes the settings of mode ipvs', async () => {
  await using stack = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), 'podwire-init-'));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  const path = join(dir, 'config.conf');
  await writeFile(
    path,
    `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: ipvs
ipvs: { strictARP: true }
conntrack: { maxPerCore: 0 }
`,
  );
  const netns = stack.use(await createScratchNetns('pw-init'));
  // The program runs inside this process: its thread has to be in the namespace.
  const sys = await openSys();
  const home = stack.use(openOwnNetns());
  const there = stack.use(openNetns(netns.path));
  sys.setns(there.fd, CLONE_NEWNET);
  stack.defer(() => sys.setns(home.fd, CLONE_NEWNET));
  writeSysctl('net/ipv4/ip_forward', '0');
  const argv = ['--init-only', '--config', path, '--hostname-override', 'node'];
  expect(await main(argv, {}, 'podwire-proxy')).toBe(0);
  const settings = {
    'net/ipv4/vs/conntrack': '1',
    'net/ipv4/vs/expire_nodest_conn': '1',
    'net/ipv4/ip_forward': '1',
    'net/ipv4/conf/all/arp_ignore': '1',
  };
  const set = Object.keys(settings).map((name) => [name, readSysctl(name)]);
  expect(Object.fromEntries(set)).toEqual(settings);
});

/** `--cleanup` on a node where kube-proxy ran in every mode, beside rules of others. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { program } from './scratch/proxied-node.ts';

let node: ScratchNetns;
beforeEach(async () => {
  node = await createScratchNetns('cleanup');
});
afterEach(() => node[Symbol.asyncDispose]());

/** What iptables and ipvs modes write, in the form of iptables-restore, beside rules of others. */
function rules(kubelet: boolean, vip: string): string {
  const mangle = kubelet ? ':KUBE-KUBELET-CANARY - [0:0]\n:KUBE-IPTABLES-HINT - [0:0]\n' : '';
  return `*mangle
${mangle}:KUBE-PROXY-CANARY - [0:0]
COMMIT
*nat
:OTHER - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SVC-NPX46M4PTMTKRN6Y - [0:0]
:KUBE-LOAD-BALANCER - [0:0]
-A PREROUTING -j OTHER
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-SERVICES -d ${vip} -p tcp -m comment --comment "default/kubernetes:https cluster IP" -m tcp --dport 443 -j KUBE-SVC-NPX46M4PTMTKRN6Y
-A KUBE-SVC-NPX46M4PTMTKRN6Y -j KUBE-MARK-MASQ
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A OTHER -p tcp -j RETURN
COMMIT
*filter
:KUBE-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-IPVS-FILTER - [0:0]
-A INPUT -j KUBE-FIREWALL
-A INPUT -p udp -j ACCEPT
-A FORWARD -j KUBE-FORWARD
-A FORWARD -j KUBE-SERVICES
-A INPUT -j KUBE-IPVS-FILTER
COMMIT
`;
}

async function cleanup(): Promise<{ readonly exitCode: number; readonly log: string }> {
  const script = `"$@" 2>&1; echo "exit $?"`;
  const args = ['-c', script, 'sh', process.execPath, program, '--cleanup'];
  const { stdout } = await node.exec('sh', args);
  return { exitCode: Number(/exit (\d+)$/.exec(stdout)?.[1]), log: stdout };
}

async function restore(tool: string, input: string): Promise<void> {
  await node.exec(tool, ['--noflush'], { input });
}

async function save(tool: string): Promise<string> {
  const { stdout } = await node.exec(tool, []);
  return stdout.replaceAll(/^#.*\n?/gm, '').replaceAll(/\[\d+:\d+\]/g, '[0:0]');
}

test('removes what each mode left, and not what belongs to others or to the kubelet', async () => {
  await restore('iptables-nft-restore', rules(true, '10.96.0.1/32'));
  await restore('ip6tables-nft-restore', rules(false, 'fd00:96::1/128'));
  await restore('iptables-legacy-restore', rules(false, '10.96.0.1/32'));
  for (const table of ['ip kube-proxy', 'ip6 kube-proxy', 'ip podwire-proxy', 'inet mine']) {
    await node.exec('nft', ['add', 'table', ...table.split(' ')]);
  }
  // This kernel has no dummy devices and no IPVS: the device's name is what counts.
  await node.ip('link add kube-ipvs0 type bridge');
  for (const set of ['KUBE-CLUSTER-IP', 'KUBE-6-CLUSTER-IP', 'KUBE-MINE']) {
    await node.exec('ipset', ['create', set, 'hash:ip']);
  }
  // A set cannot go before the rule that asks it.
  const words = '-A KUBE-IPVS-FILTER -m set --match-set KUBE-CLUSTER-IP dst -j RETURN';
  await node.exec('iptables-nft', words.split(' '));

  const { exitCode, log } = await cleanup();
  expect(log).toContain('IPv6 rules of iptables (nf_tables)');
  expect(exitCode, log).toBe(0);

  const nft = await save('iptables-nft-save');
  expect(nft.match(/KUBE-[A-Z-]+/g)?.toSorted()).toEqual([
    'KUBE-FIREWALL',
    'KUBE-FIREWALL',
    'KUBE-IPTABLES-HINT',
    'KUBE-KUBELET-CANARY',
  ]);
  for (const tool of ['iptables-nft-save', 'ip6tables-nft-save', 'iptables-legacy-save']) {
    const left = await save(tool);
    expect(left).toContain('-A PREROUTING -j OTHER\n');
    expect(left).toContain('-A OTHER -p tcp -j RETURN\n');
    expect(left).toContain('-A INPUT -p udp -j ACCEPT\n');
    if (tool !== 'iptables-nft-save') expect(left).not.toContain('KUBE-');
  }
  const tables = (await node.exec('nft', ['list', 'tables'])).stdout;
  expect(tables).toContain('table inet mine');
  expect(tables).not.toMatch(/kube-proxy|podwire-proxy/);
  expect(await node.ip('-br link')).not.toContain('kube-ipvs0');
  expect((await node.exec('ipset', ['list', '-n'])).stdout).toBe('KUBE-MINE');

  // There is nothing left to do.
  expect((await cleanup()).log).not.toContain('Removed');
});

test('fails, naming what is left and why, when rules of others lead into our chains', async () => {
  await restore('iptables-nft-restore', rules(false, '10.96.0.1/32'));
  await node.exec('iptables-nft', '-t nat -A OTHER -j KUBE-SVC-NPX46M4PTMTKRN6Y'.split(' '));
  await node.exec('ipset', ['create', 'KUBE-CLUSTER-IP', 'hash:ip']);
  await node.exec(
    'iptables-nft',
    '-A OUTPUT -m set --match-set KUBE-CLUSTER-IP dst -j DROP'.split(' '),
  );
  const { exitCode, log } = await cleanup();
  expect(exitCode).toBe(1);
  expect(log).toContain('chain nat KUBE-SVC-NPX46M4PTMTKRN6Y: rules of others lead into it');
  expect(log).toContain('Cannot remove ipset KUBE-CLUSTER-IP');
  const left = await save('iptables-nft-save');
  // Emptied, so that it leads nowhere any more; all else is gone.
  expect(left.match(/^[:-].*KUBE-.*$/gm)?.toSorted()).toEqual([
    '-A OTHER -j KUBE-SVC-NPX46M4PTMTKRN6Y',
    '-A OUTPUT -m set --match-set KUBE-CLUSTER-IP dst -j DROP',
    ':KUBE-SVC-NPX46M4PTMTKRN6Y - [0:0]',
  ]);
});

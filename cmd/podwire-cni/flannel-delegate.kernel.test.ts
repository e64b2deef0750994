/** Our plugins under flannel's, by the subnet.env that our daemon writes. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import { subnetEnvText } from '#pkg/pod-network/subnet-env.ts';
import { eachOnScratchNode } from './scratch-each.ts';
import { writeFlannelPlugin } from './scratch-flannel-plugin.ts';
import { reaches, showLink, type CniOutcome, type ScratchNode } from './scratch-node.ts';

let node: ScratchNode;
let pod: ScratchNetns;
eachOnScratchNode(async (fresh) => {
  node = fresh;
  pod = await node.pod();
  writeFlannelPlugin(node.binDir);
});

function writeSubnetEnv(masquerade: boolean): void {
  const facts = {
    clusterCIDRs: ['10.3.0.0/16', 'fd00:3::/48'].map(parsePrefix),
    podCIDRs: ['10.3.1.0/24', 'fd00:3:0:1::/64'].map(parsePrefix),
    mtuBytes: 1430,
    masquerade,
  };
  writeFileSync(join(node.stateDir, '..', 'subnet.env'), subnetEnvText(facts));
}

/** As flannel's manifest has it in its ConfigMap, cni-conf.json. */
function call(
  command: string,
  ask: { readonly id?: string; readonly netns?: string; readonly delegate?: object } = {},
): Promise<CniOutcome> {
  const { id = 'pod-1', netns = pod.path, delegate = {} } = ask;
  const directory = join(node.stateDir, '..');
  return node.cni('flannel', {
    command,
    id,
    netns,
    config: {
      cniVersion: '0.3.1',
      name: 'cbr0',
      subnetFile: join(directory, 'subnet.env'),
      dataDir: join(directory, 'flannel'),
      ipam: { dataDir: node.dataDir },
      delegate: { hairpinMode: true, isDefaultGateway: true, ...delegate },
    },
  });
}

async function masqueradeRules(): Promise<string> {
  const { stdout } = await node.netns.exec('sh', ['-c', 'iptables-save -t nat; nft list ruleset']);
  return stdout
    .split('\n')
    .filter((line) => line.includes('10.3.1.2'))
    .join('\n');
}

const fine = { exitCode: 0, json: undefined, stderr: '' };

describe('as the delegate of type flannel', () => {
  it('133. bridge gives pods of the subnet both families, the MTU and the way to the network', async () => {
    writeSubnetEnv(true);
    const { exitCode, json, stderr } = await call('ADD');
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
    expect(json).toMatchObject({
      cniVersion: '0.3.1',
      ips: [
        { version: '4', address: '10.3.1.2/24', gateway: '10.3.1.1' },
        { version: '6', address: 'fd00:3:0:1::2/64', gateway: 'fd00:3:0:1::1' },
      ],
    });
    expect((await showLink(pod, 'eth0')).mtu).toBe(1430);
    const { linkinfo } = await showLink(node.netns, json.interfaces[1]?.name ?? '');
    expect(linkinfo.info_slave_data).toMatchObject({ hairpin: true });
    expect(await pod.ip('route')).toMatch(
      /^default via 10\.3\.1\.1 [^]*^10\.3\.0\.0\/16 via 10\.3\.1\.1 /m,
    );
    expect(await pod.ip('-6 route')).toContain('fd00:3::/48 via fd00:3:0:1::1 ');
    const other = await node.pod();
    expect((await call('ADD', { id: 'pod-2', netns: other.path })).exitCode).toBe(0);
    expect(await reaches(pod, '10.3.1.3')).toBe(true);
    expect(await reaches(pod, 'fd00:3:0:1::3')).toBe(true);
    // The daemon does it.
    expect(await masqueradeRules()).toBe('');
    expect(await call('DEL', { netns: '' })).toEqual(fine);
    expect(await call('DEL', { id: 'pod-2', netns: other.path })).toEqual(fine);
    expect(await call('DEL')).toEqual(fine);
    expect(node.leases()).toEqual([]);
  });

  it('133. where the daemon does not masquerade, the delegate does', async () => {
    writeSubnetEnv(false);
    expect((await call('ADD')).exitCode).toBe(0);
    expect(await masqueradeRules()).toContain('10.3.1.2');
    expect(await call('DEL', { netns: '' })).toEqual(fine);
    expect(await masqueradeRules()).toBe('');
  });

  it('133. another type of ours takes what is made for it', async () => {
    writeSubnetEnv(true);
    const delegate = { type: 'ptp' };
    const { exitCode, json } = await call('ADD', { delegate });
    expect([exitCode, json.msg]).toEqual([0, undefined]);
    expect((await showLink(pod, 'eth0')).mtu).toBe(1430);
    expect(await reaches(pod, '10.3.1.1')).toBe(true);
    expect(await call('DEL', { delegate })).toEqual(fine);
    expect(node.leases()).toEqual([]);
  });
});

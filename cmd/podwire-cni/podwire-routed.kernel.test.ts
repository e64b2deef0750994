import { existsSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { statesOfLinksUp } from './scratch-carrier.ts';
import { eachOnScratchNode } from './scratch-each.ts';
import {
  reaches,
  showLink,
  writeNodeFacts,
  type CniOutcome,
  type ScratchNode,
} from './scratch-node.ts';
import { ask, connectOutside, serve } from './scratch-traffic.ts';

let node: ScratchNode;
eachOnScratchNode((fresh) => {
  node = fresh;
  writeNodeFacts(node, ['10.244.1.0/24', 'fd00:10:244:1::/64']);
});

interface Call {
  readonly id?: string;
  readonly ifName?: string;
  readonly netns: string;
  readonly more?: object;
  readonly program?: string;
}

function call(command: string, { more, ...rest }: Call): Promise<CniOutcome> {
  const config = {
    cniVersion: '1.1.0',
    name: 'podwire',
    type: 'podwire',
    mode: 'routed',
    nodeFile: node.nodeFile,
    stateDir: node.stateDir,
    ipam: { dataDir: node.dataDir },
    ...more,
  };
  return node.cni('podwire', { command, ...rest, config });
}

describe('mode routed', () => {
  it('gives a pod addresses of its own, on a link of its own', async () => {
    const [a, b] = [await node.pod(), await node.pod()];
    const { exitCode, json } = await call('ADD', { id: 'a', netns: a.path });
    expect({ exitCode, json }).toMatchObject({
      exitCode: 0,
      json: {
        interfaces: [{ mtu: 1450 }, { name: 'eth0', mtu: 1450, sandbox: a.path }],
        ips: [
          { address: '10.244.1.2/32', gateway: '10.244.1.1', interface: 1 },
          { address: 'fd00:10:244:1::2/128', gateway: 'fd00:10:244:1::1', interface: 1 },
        ],
        routes: [
          { dst: '0.0.0.0/0', gw: '10.244.1.1' },
          { dst: '::/0', gw: 'fd00:10:244:1::1' },
        ],
      },
    });
    expect(await call('ADD', { id: 'b', netns: b.path })).toMatchObject({ exitCode: 0 });
    expect(await node.netns.ip('-br link')).not.toContain('cni0');
    expect(await showLink(a, 'eth0')).toMatchObject({ mtu: 1450 });
    for (const there of ['10.244.1.1', 'fd00:10:244:1::1', '10.244.1.3', 'fd00:10:244:1::3']) {
      expect(await reaches(a, there), there).toBe(true);
    }
    for (const there of ['10.244.1.2', 'fd00:10:244:1::2']) {
      expect(await reaches(node.netns, there), there).toBe(true);
    }
    const check = (): Promise<CniOutcome> =>
      call('CHECK', { id: 'a', netns: a.path, more: { prevResult: json } });
    expect(await check()).toMatchObject({ exitCode: 0 });
    await node.netns.ip(`route del 10.244.1.2 dev ${json.interfaces[0]?.name}`);
    expect((await check()).json.msg).toContain("the host's route to 10.244.1.2 is missing");
    // The gateway's address is on every link: one that goes does not take it from the others.
    expect(await call('DEL', { id: 'a', netns: a.path })).toMatchObject({ exitCode: 0 });
    expect(await reaches(b, '10.244.1.1')).toBe(true);
    expect(await reaches(b, 'fd00:10:244:1::1')).toBe(true);
  });

  it.each([['runtimeConfig', { mac: '0a:58:00:00:00:99', ips: ['10.244.1.77'] }]])(
    'gives a pod the MAC and addresses that %s asks for',
    async (_, runtimeConfig) => {
      const pod = await node.pod();
      const { json } = await call('ADD', { netns: pod.path, more: { runtimeConfig } });
      expect(json.ips[0]?.address).toBe('10.244.1.77/32');
      expect(await showLink(pod, 'eth0')).toMatchObject({ address: '0a:58:00:00:00:99' });
      expect(await reaches(pod, '10.244.1.1')).toBe(true);
    },
  );

  it('takes routes however they are written: with host bits, twice, on the link', async () => {
    const pod = await node.pod();
    const [wide, onLink] = [{ dst: '10.20.0.1/16' }, { dst: '10.30.0.0/16', scope: 253 }];
    const more = { ipam: { dataDir: node.dataDir, routes: [wide, wide, onLink] } };
    const { json } = await call('ADD', { netns: pod.path, more });
    expect(json.msg).toBeUndefined();
    const routes = await pod.ip('route show');
    expect(routes).toContain('10.20.0.0/16 via 10.244.1.1 dev eth0');
    expect(routes).toContain('10.30.0.0/16 dev eth0 scope link');
    const check = await call('CHECK', { netns: pod.path, more: { ...more, prevResult: json } });
    expect(check.json).toBeUndefined();
  });

  it('leaves the default route to the first interface, where the second is told to', async () => {
    const pod = await node.pod();
    expect(await call('ADD', { netns: pod.path })).toMatchObject({ exitCode: 0 });
    const ipam = { dataDir: node.dataDir, ranges: [[{ subnet: '10.99.0.0/24' }]] };
    const more = { name: 'side', isDefaultGateway: false, ipam };
    const { json } = await call('ADD', { ifName: 'net1', netns: pod.path, more });
    expect(json.routes).toBeUndefined();
    expect(await pod.ip('route show default')).toMatch(/^default via 10.244.1.1 dev eth0\s*$/);
    expect(await reaches(pod, '10.99.0.1')).toBe(true);
  });

  it.each(['bridge', 'routed'])(
    'never has a link up that waits for a carrier, nor has mode %s',
    async (mode) => {
      const pod = await node.pod();
      const states = await statesOfLinksUp(node.netns, async () => {
        const added = await call('ADD', { netns: pod.path, more: { mode } });
        expect(added).toMatchObject({ exitCode: 0 });
      });
      expect(states).not.toEqual([]);
      expect(states.filter((flags) => !flags.includes('LOWER_UP'))).toEqual([]);
    },
  );

  it('a route that leads nowhere leaves nothing', async () => {
    const pod = await node.pod();
    const before = await node.snapshot([pod]);
    const routes = [{ dst: '10.9.0.0/16', gw: '192.0.2.1' }];
    const more = { ipam: { dataDir: node.dataDir, routes } };
    const { exitCode, json } = await call('ADD', { netns: pod.path, more });
    expect(exitCode).toBe(1);
    expect(json.msg).toContain('Cannot add route 10.9.0.0/16 via 192.0.2.1');
    expect(await node.snapshot([pod])).toEqual(before);
  });
});

describe('a node without nft', () => {
  /** The executable with a PATH that has everything but nft. */
  function withoutNft(): string {
    const bin = join(node.dataDir, '.bin');
    const program = join(node.binDir, 'podwire-without-nft');
    const script = `mkdir -p ${bin}; export PATH=${bin}; exec ${node.binDir}/podwire`;
    writeFileSync(program, `#!/bin/bash\n/bin/${script}\n`, { mode: 0o755 });
    return program;
  }

  function linkTools(): void {
    const bin = join(node.dataDir, '.bin');
    for (const directory of ['/usr/sbin', '/sbin'].filter((path) => existsSync(path))) {
      for (const name of readdirSync(directory).filter((n) => /^(?:ip6?tables|xtables)/.test(n))) {
        if (!existsSync(join(bin, name))) symlinkSync(join(directory, name), join(bin, name));
      }
    }
  }

  it('says so; without anti-spoofing its host ports are iptables rules', async () => {
    const outside = await connectOutside(node);
    try {
      const program = withoutNft();
      const pod = await node.pod();
      const refused = await call('ADD', { netns: pod.path, program });
      expect(refused.json.msg).toContain('there is no program nft in PATH');
      const status = await call('STATUS', { netns: '', program });
      expect(status.json).toMatchObject({ code: 50 });
      linkTools();
      const runtimeConfig = {
        portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }],
      };
      const more = { antiSpoofing: false, runtimeConfig };
      const added = await call('ADD', { netns: pod.path, program, more });
      expect(added).toMatchObject({ exitCode: 0 });
      await serve(pod, 'web', [80]);
      expect(await ask(outside, 'tcp 192.0.2.1 8080')).toBe('web 192.0.2.2');
      const check = { netns: pod.path, program, more: { ...more, prevResult: added.json } };
      expect(await call('CHECK', check)).toMatchObject({ exitCode: 0 });
      expect(await call('DEL', { netns: '', program })).toMatchObject({ exitCode: 0 });
      const { stdout } = await node.netns.exec('iptables-save', []);
      expect(stdout).not.toContain('8080');
    } finally {
      await outside[Symbol.asyncDispose]();
    }
  });
});

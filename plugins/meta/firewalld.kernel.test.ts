import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  buildExecutable,
  createScratchNode,
  type CniOutcome,
  type ScratchNode,
} from '#cmd/podwire-cni/scratch-node.ts';
import { callPlugin, nftRules, savedRules } from './scratch-chain.ts';
import { hasFirewalld, startFirewalld, type ScratchFirewalld } from './scratch-firewalld.ts';

/** Needs the package firewalld, which the set-up leaves alone where it would start with the machine. */
describe.runIf(hasFirewalld)('119. firewalld', () => {
  let node: ScratchNode;
  let firewalld: ScratchFirewalld;
  beforeAll(async () => {
    buildExecutable();
    node = await createScratchNode();
    firewalld = await startFirewalld(node.netns);
  });
  afterAll(async () => {
    await firewalld[Symbol.asyncDispose]();
    await node[Symbol.asyncDispose]();
  });

  const prevResult = {
    cniVersion: '1.0.0',
    interfaces: [{ name: 'cni0' }, { name: 'veth1' }, { name: 'eth0', sandbox: '/run/netns/x' }],
    ips: [
      { interface: 2, address: '10.1.2.3/24', gateway: '10.1.2.1' },
      { interface: 2, address: 'fd00:1::3/64', gateway: 'fd00:1::1' },
    ],
  };
  const sources = ['10.1.2.3/32', 'fd00:1::3/128'];

  /** `prevResult` of `more`: what the runtime kept, if anything. */
  function call(
    command: string,
    conf: object = {},
    more: Partial<Parameters<typeof callPlugin>[1]> = {},
  ): Promise<CniOutcome> {
    const plugin = { type: 'firewall', dataDir: join(node.stateDir, 'firewall'), ...conf };
    return callPlugin(node, {
      command,
      cniVersion: ['STATUS', 'GC'].includes(command) ? '1.1.0' : '1.0.0',
      netns: '/run/netns/x',
      plugin,
      prevResult,
      env: firewalld.env,
      ...more,
    });
  }

  const done = { exitCode: 0, stderr: '' };

  it.each([
    ['when it runs', {}, 'trusted'],
    ['when it is asked for', { backend: 'firewalld' }, 'trusted'],
    ['in a zone of the configuration', { firewalldZone: 'internal' }, 'internal'],
  ])('has the addresses of a container %s', async (_, conf, zone) => {
    expect((await call('ADD', conf)).json).toMatchObject(prevResult);
    expect(await firewalld.sources(zone)).toEqual(sources);
    expect(await savedRules(node.netns, 'filter')).not.toContain('CNI-FORWARD');
    expect(await call('ADD', conf)).toMatchObject(done);
    expect(await call('CHECK', conf)).toMatchObject(done);
    expect(await call('STATUS', conf)).toMatchObject(done);
    for (const time of ['first', 'second']) {
      expect([time, await call('DEL', conf)]).toMatchObject([time, done]);
      expect(await firewalld.sources(zone)).toEqual([]);
    }
    expect((await call('CHECK', conf)).json.msg).toBe(
      `10.1.2.3/32 is not a source of firewalld's zone ${zone}`,
    );
  });

  it('143. 147. has none of a container whose DEL has no result, under whatever configuration', async () => {
    expect(await call('ADD', { firewalldZone: 'internal' })).toMatchObject(done);
    expect(await firewalld.sources('internal')).toEqual(sources);
    const renamed = { prevResult: undefined, network: 'renamed' };
    expect(await call('DEL', { backend: 'nftables' }, renamed)).toMatchObject(done);
    expect(await firewalld.sources('internal')).toEqual([]);
  });

  it('145. has none after GC of a container that is not valid, and without a list keeps all', async () => {
    const neighbour = { ...prevResult, ips: [{ interface: 2, address: '10.1.2.4/24' }] };
    expect(await call('ADD', {}, { id: 'gone' })).toMatchObject(done);
    expect(await call('ADD', {}, { id: 'valid', prevResult: neighbour })).toMatchObject(done);
    const all = [sources[0], '10.1.2.4/32', sources[1]];
    expect((await call('GC', {}, { prevResult: undefined })).exitCode).not.toBe(0);
    expect(await firewalld.sources('trusted')).toEqual(all);
    const valid = { 'cni.dev/valid-attachments': [{ containerID: 'valid', ifname: 'eth0' }] };
    expect(await call('GC', {}, { prevResult: undefined, more: valid })).toMatchObject(done);
    expect(await firewalld.sources('trusted')).toEqual(['10.1.2.4/32']);
    const nobody = { 'cni.dev/valid-attachments': [] };
    expect(await call('GC', {}, { prevResult: undefined, more: nobody })).toMatchObject(done);
    expect(await firewalld.sources('trusted')).toEqual([]);
  });

  it('is left alone by another backend', async () => {
    expect(await call('ADD', { backend: 'nftables' })).toMatchObject(done);
    expect(await firewalld.sources('trusted')).toEqual([]);
    expect(await nftRules(node.netns)).toContain('10.1.2.3');
    expect(await call('DEL', { backend: 'nftables' })).toMatchObject(done);
  });

  it('has no word for bridges that are kept apart: rules do that', async () => {
    const conf = { backend: 'firewalld', ingressPolicy: 'same-bridge' };
    expect(await call('ADD', conf)).toMatchObject(done);
    expect(await firewalld.sources('trusted')).toEqual(sources);
    expect(await savedRules(node.netns, 'filter')).toContain('CNI-ISOLATION');
    expect(await call('DEL', conf)).toMatchObject(done);
    expect(await firewalld.sources('trusted')).toEqual([]);
  });

  it('without such a zone ADD fails and leaves nothing', async () => {
    const conf = { backend: 'firewalld', firewalldZone: 'nowhere' };
    expect((await call('ADD', conf)).json.msg).toContain('INVALID_ZONE');
    expect(await call('DEL', conf)).toMatchObject(done);
  });
});

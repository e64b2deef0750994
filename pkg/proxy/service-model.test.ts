/** Which ports changed, as Services, slices and the node change. */
import { describe, expect, it } from 'vitest';
import { objectKey, type EndpointSliceRecord } from '#pkg/kube/types.ts';
import type { ProxiedPort } from './proxied-port.ts';
import { ServiceModel, type ModelInput, type PortChange } from './service-model.ts';
import { asChanges, endpoint, nodeName, service, slice } from './testdata/records.ts';

const svc = service('ns1/svc1', { clusterIPs: ['172.30.0.41'] });

describe('what changed', () => {
  const one = slice('ns1/svc1', ['10.1.0.1'], { name: 'a' });
  const two = slice('ns1/svc1', ['10.1.0.2'], { name: 'b' });
  const other = service('ns1/svc2', { clusterIPs: ['172.30.0.42'] });
  const full = (): ServiceModel => {
    const model = new ServiceModel('ip', { name: nodeName, zone: 'z1' });
    model.update(asChanges({ services: [svc, other], slices: [one, two] }));
    return model;
  };
  const shown = (changes: readonly PortChange[]): string[] =>
    changes.map((change) => {
      const side = (port: ProxiedPort | undefined): string =>
        port === undefined ? 'none' : port.endpoints.cluster.map((e) => e.address).join(' ');
      return `${change.key}: ${side(change.old)} → ${side(change.new)}`;
    });
  const put = (record: EndpointSliceRecord): ModelInput => ({
    services: [],
    slices: [{ key: objectKey(record), new: record }],
  });

  it('at first is everything', () => {
    const model = new ServiceModel('ip', { name: nodeName, zone: undefined });
    const changes = model.update(asChanges({ services: [svc, other], slices: [one, two] }));
    expect(shown(changes)).toEqual([
      'ns1/svc1:p80/tcp: none → 10.1.0.1 10.1.0.2',
      'ns1/svc2:p80/tcp: none → ',
    ]);
  });

  it('S96. an endpoint moves between slices: it is there at every step', () => {
    const model = full();
    const both = { ...two, endpoints: [...two.endpoints, ...one.endpoints] };
    expect(model.update(put(both))).toEqual([]);
    expect(model.update(put({ ...one, endpoints: [] }))).toEqual([]);
  });

  it('S94. a slice is deleted, the other stays; an unknown one is deleted', () => {
    const model = full();
    const gone = { services: [], slices: [{ key: objectKey(one), new: undefined }] };
    expect(shown(model.update(gone))).toEqual(['ns1/svc1:p80/tcp: 10.1.0.1 10.1.0.2 → 10.1.0.2']);
    expect(model.update(gone)).toEqual([]);
  });

  it('a slice changes hands', () => {
    const changes = full().update(put({ ...one, serviceName: 'svc2' }));
    expect(shown(changes)).toEqual([
      'ns1/svc1:p80/tcp: 10.1.0.1 10.1.0.2 → 10.1.0.2',
      'ns1/svc2:p80/tcp:  → 10.1.0.1',
    ]);
  });

  it('S93. nothing that matters: no change', () => {
    const again = { ...svc, resourceVersion: '2' };
    expect(full().update(asChanges({ services: [again], slices: [one] }))).toEqual([]);
  });

  it('S95. a port is renamed, a Service is deleted', () => {
    const model = full();
    const ports = [{ name: 'http', protocol: 'TCP', port: 80, nodePort: 0 }] as const;
    expect(shown(model.update(asChanges({ services: [{ ...svc, ports }] })))).toEqual([
      'ns1/svc1:p80/tcp: 10.1.0.1 10.1.0.2 → none',
      'ns1/svc1:http/tcp: none → ',
    ]);
    const gone = { services: [{ key: 'ns1/svc2', new: undefined }], slices: [] };
    expect(shown(model.update(gone))).toEqual(['ns1/svc2:p80/tcp:  → none']);
  });

  it('slices come before their Service, and outlive it', () => {
    const model = new ServiceModel('ip', { name: nodeName, zone: undefined });
    expect(model.update(put(one))).toEqual([]);
    const service1 = asChanges({ services: [svc] });
    const gone = { services: [{ key: 'ns1/svc1', new: undefined }], slices: [] };
    for (let i = 0; i < 2; i++) {
      expect(shown(model.update(service1))).toEqual(['ns1/svc1:p80/tcp: none → 10.1.0.1']);
      expect(shown(model.update(gone))).toEqual(['ns1/svc1:p80/tcp: 10.1.0.1 → none']);
    }
  });

  it('S89. the node moves to another zone', () => {
    const model = full();
    const hinted = {
      ...one,
      endpoints: ['z1', 'z2'].map((z, i) => endpoint({ address: `10.1.0.${i}`, zoneHints: [z] })),
    };
    model.update(put(hinted));
    model.update({ services: [], slices: [{ key: objectKey(two), new: undefined }] });
    expect(shown(model.moveNode({ name: nodeName, zone: 'z2' }))).toEqual([
      'ns1/svc1:p80/tcp: 10.1.0.0 → 10.1.0.1',
    ]);
    expect(model.moveNode({ name: nodeName, zone: 'z2' })).toEqual([]);
  });

  it('S90. a Service with three ports comes and goes, in each protocol', () => {
    const model = full();
    const ports = (['TCP', 'UDP', 'SCTP'] as const).map((protocol) => ({
      name: protocol.toLowerCase(),
      protocol,
      port: 53,
      nodePort: 0,
    }));
    const three = service('ns2/dns', { clusterIPs: ['172.30.0.10'], ports });
    const keys = ['ns2/dns:tcp/tcp', 'ns2/dns:udp/udp', 'ns2/dns:sctp/sctp'];
    expect(shown(model.update(asChanges({ services: [three] })))).toEqual(
      keys.map((key) => `${key}: none → `),
    );
    expect([...model.ports.keys()].slice(-3)).toEqual(keys);
    const gone = { services: [{ key: 'ns2/dns', new: undefined }], slices: [] };
    // The old value comes along: flows to its UDP port must be ended.
    expect(model.update(gone).map(({ old }) => old?.protocol)).toEqual(['tcp', 'udp', 'sctp']);
    expect(model.ports.size).toBe(2);
  });

  it('S92. a Service becomes a load balancer and a cluster address again', () => {
    const model = full();
    const balancer = {
      ...svc,
      type: 'LoadBalancer',
      externalTrafficPolicy: 'Local',
      healthCheckNodePort: 30000,
      loadBalancerIngress: [{ ip: '1.2.3.4', ipMode: 'VIP' }],
    } as const;
    const [to, ...others] = model.update(asChanges({ services: [balancer] }));
    expect(others).toEqual([]);
    expect(to).toMatchObject({
      old: { healthCheckNodePort: 0, loadBalancerIPs: [] },
      new: { healthCheckNodePort: 30000, loadBalancerIPs: ['1.2.3.4'] },
    });
    const [back] = model.update(asChanges({ services: [svc] }));
    expect(back).toMatchObject({ old: to?.new, new: to?.old });
  });

  it('S91. a Service becomes an ExternalName, or headless, and comes back', () => {
    const model = full();
    for (const fields of [{ type: 'ExternalName' }, { clusterIPs: ['None'] }] as const) {
      const changes = model.update(asChanges({ services: [{ ...svc, ...fields }] }));
      expect(shown(changes)).toEqual(['ns1/svc1:p80/tcp: 10.1.0.1 10.1.0.2 → none']);
      expect(shown(model.update(asChanges({ services: [svc] })))).toEqual([
        'ns1/svc1:p80/tcp: none → 10.1.0.1 10.1.0.2',
      ]);
    }
  });

  it('S103. a Service and its slices come and go a thousand times: nothing of them is left', () => {
    const model = full();
    const before = structuredClone([...model.ports]);
    for (let i = 0; i < 1000; i++) {
      const passing = service(`ns2/passing-${i}`, { clusterIPs: ['172.30.1.1'] });
      const owned = slice(`ns2/passing-${i}`, ['10.1.1.1', 'bad address']);
      model.update(asChanges({ services: [passing], slices: [owned] }));
      const services = [{ key: objectKey(passing), new: undefined }];
      const slices = [{ key: objectKey(owned), new: undefined }];
      // Together, or one before the other.
      if (i % 3 !== 1) model.update({ services, slices: i % 3 === 0 ? slices : [] });
      if (i % 3 !== 0) model.update({ services: i % 3 === 1 ? services : [], slices });
    }
    expect([...model.ports]).toEqual(before);
    expect(model.problems).toEqual([]);
  });
});

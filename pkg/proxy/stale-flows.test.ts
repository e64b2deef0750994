import { describe, expect, it } from 'vitest';
import type { EndpointRecord, EndpointSliceRecord, ServiceRecord } from '#pkg/kube/types.ts';
import { ServiceModel, type PortChange } from './service-model.ts';
import { ServedDestinations } from './flow-destinations.ts';
import { doubtfulDestinations, reviewFlows } from './stale-flows.ts';
import { asChanges, nodeName, service, slice, type Cluster } from './testdata/records.ts';

const nodeAddresses = ['192.168.0.2', '10.0.0.2'];
const dns = (fields: Partial<ServiceRecord> = {}): ServiceRecord =>
  service('kube-system/dns', {
    clusterIPs: ['172.30.0.10'],
    ports: [{ name: 'dns', protocol: 'UDP', port: 53, nodePort: 0 }],
    ...fields,
  });
type Endpoints = readonly (string | (Partial<EndpointRecord> & { address: string }))[];
const pods = (endpoints: Endpoints, port = 5353): EndpointSliceRecord =>
  slice('kube-system/dns', endpoints, { ports: [{ name: 'dns', protocol: 'UDP', port }] });

/** What a model says when the API goes through these states, the last steps at once. */
function history(states: readonly Cluster[]): {
  readonly rules: ServedDestinations;
  readonly changes: readonly PortChange[];
} {
  const rules = new ServedDestinations();
  const model = new ServiceModel('ip', { name: nodeName, zone: undefined });
  let known: Cluster = { services: [], slices: [] };
  let changes: readonly PortChange[] = [];
  for (const state of states) {
    const gone = {
      services: known.services.map((s) => ({ key: `${s.namespace}/${s.name}`, new: undefined })),
      slices: (known.slices ?? []).map((s) => ({
        key: `${s.namespace}/${s.name}`,
        new: undefined,
      })),
    };
    const now = asChanges(state);
    changes = model.update({
      services: [...gone.services, ...now.services],
      slices: [...gone.slices, ...now.slices],
    });
    rules.update(changes);
    known = state;
  }
  return { rules, changes };
}

function doubtfulAfter(...states: readonly Cluster[]): string[] {
  return [...doubtfulDestinations(history(states).changes).keys()];
}

/** Which of these flows, "destination = server", are stale after the last state. */
function staleAfter(states: readonly Cluster[], flows: readonly string[]): string[] {
  const { changes, rules } = history(states);
  const doubtful = doubtfulDestinations(changes).values();
  const { isStale } = reviewFlows(doubtful, rules, nodeAddresses);
  return flows.filter((flow) => {
    const [destination = '', server = ''] = flow.split(' = ');
    return isStale({ destination, server });
  });
}

const before: Cluster = { services: [dns()], slices: [pods(['10.1.0.1', '10.1.0.2'])] };
const tcp: Cluster = {
  services: [service('a/b', { clusterIPs: ['172.30.0.1'] })],
  slices: [slice('a/b', ['10.1.0.1'])],
};
const exposed = dns({
  type: 'LoadBalancer',
  ports: [{ name: 'dns', protocol: 'UDP', port: 53, nodePort: 30053 }],
  externalIPs: ['192.0.2.1'],
  loadBalancerIngress: [
    { ip: '198.51.100.1', ipMode: 'VIP' },
    { ip: '198.51.100.2', ipMode: 'Proxy' },
  ],
});

describe('flows are looked at', () => {
  it.each<[string, Cluster[], string[]]>([
    [
      'S100. when an endpoint goes',
      [before, { ...before, slices: [pods(['10.1.0.1'])] }],
      ['172.30.0.10:53'],
    ],
    ['S100. not when one of a TCP port goes', [tcp, { ...tcp, slices: [] }], []],
    [
      'not when an endpoint is added',
      [before, { ...before, slices: [pods(['10.1.0.1', '10.1.0.2', '10.1.0.3'])] }],
      [],
    ],
    [
      'not when only affinity changes',
      [before, { ...before, services: [dns({ affinitySeconds: 5 })] }],
      [],
    ],
    ['when the Service appears, with endpoints', [{ services: [] }, before], ['172.30.0.10:53']],
    ['when the first endpoint comes', [{ services: [dns()] }, before], ['172.30.0.10:53']],
    ['when the last endpoint goes', [before, { services: [dns()] }], ['172.30.0.10:53']],
    ['when the Service goes', [before, { services: [] }], ['172.30.0.10:53']],
    [
      'when a Service gets another address: at both',
      [before, { ...before, services: [dns({ clusterIPs: ['172.30.0.11'] })] }],
      ['172.30.0.10:53', '172.30.0.11:53'],
    ],
    [
      'when the target port changes',
      [before, { ...before, slices: [pods(['10.1.0.1', '10.1.0.2'], 53)] }],
      ['172.30.0.10:53'],
    ],
    [
      'at everything that leads to the Service, but not where it is told to answer elsewhere',
      [
        { ...before, services: [exposed] },
        { services: [exposed], slices: [pods(['10.1.0.1'])] },
      ],
      ['172.30.0.10:53', '192.0.2.1:53', '198.51.100.1:53', 'node-port 30053'],
    ],
    [
      'at the external addresses only, when those change',
      [
        { ...before, services: [exposed] },
        { ...before, services: [{ ...exposed, externalIPs: [], loadBalancerIngress: [] }] },
      ],
      ['192.0.2.1:53', '198.51.100.1:53'],
    ],
    [
      'when internalTrafficPolicy becomes Local and endpoints are elsewhere',
      [before, { ...before, services: [dns({ internalTrafficPolicy: 'Local' })] }],
      ['172.30.0.10:53'],
    ],
    [
      'not when an endpoint is ending and still serves, or is not ready and still serves',
      [
        before,
        {
          ...before,
          slices: [
            pods([
              { address: '10.1.0.1', terminating: true },
              { address: '10.1.0.2', ready: false },
            ]),
          ],
        },
      ],
      [],
    ],
  ])('%s', (_, states, expected) => {
    expect(doubtfulAfter(...states)).toEqual(expected);
  });
});

describe('of the flows there', () => {
  const vip = '172.30.0.10:53';
  const to = (...servers: string[]): string[] => servers.map((server) => `${vip} = ${server}`);

  it('S120. those to endpoints that serve go on, others do not', () => {
    const after: Cluster = {
      services: [dns()],
      slices: [
        pods([
          '10.1.0.1',
          { address: '10.1.0.2', ready: false },
          { address: '10.1.0.3', terminating: true },
          { address: '10.1.0.4', terminating: true, serving: false },
          { address: '10.1.0.5', ready: false, serving: false },
          // publishNotReadyAddresses
          { address: '10.1.0.6', ready: true, serving: false },
        ]),
      ],
    };
    const flows = to(...[1, 2, 3, 4, 5, 6, 7].map((n) => `10.1.0.${n}:5353`), '10.1.0.1:53', vip);
    expect(staleAfter([{ services: [] }, after], flows)).toEqual(
      to('10.1.0.4:5353', '10.1.0.5:5353', '10.1.0.7:5353', '10.1.0.1:53', vip),
    );
  });

  it('nobody serves: none goes on (kubernetes#139628)', () => {
    const flows = to('10.1.0.1:5353', '10.1.0.2:5353', vip);
    expect(staleAfter([before, { services: [dns()] }], flows)).toEqual(flows);
  });

  it('the first endpoint comes: those that were never translated end (kubernetes#126468)', () => {
    expect(staleAfter([{ services: [dns()] }, before], to(vip, '10.1.0.1:5353'))).toEqual(to(vip));
  });

  it('the Service is gone: translated ones end, others are none of ours (kubernetes#141371)', () => {
    expect(staleAfter([before, { services: [] }], to('10.1.0.1:5353', '10.9.9.9:1', vip))).toEqual(
      to('10.1.0.1:5353', '10.9.9.9:1'),
    );
  });

  it('another Service took over the address in the same step: what it serves goes on', () => {
    const taker = { ...dns(), name: 'taker' };
    const after = {
      services: [taker],
      slices: [{ ...pods(['10.1.0.2', '10.1.0.8']), name: 'taker-v4', serviceName: 'taker' }],
    };
    const flows = to('10.1.0.1:5353', '10.1.0.2:5353', '10.1.0.8:5353');
    expect(staleAfter([before, after], flows)).toEqual(to('10.1.0.1:5353'));
  });

  it('an external address that another Service has too: flows to either go on', () => {
    const one = dns({ externalIPs: ['192.0.2.1'] });
    const two = { ...one, name: 'two', clusterIPs: ['172.30.0.11'] };
    const other = { ...pods(['10.1.0.8']), name: 'two-v4', serviceName: 'two' };
    const states = [
      { services: [one, two], slices: [pods(['10.1.0.1', '10.1.0.2']), other] },
      { services: [one, two], slices: [pods(['10.1.0.1']), other] },
    ];
    const flows = ['10.1.0.1:5353', '10.1.0.2:5353', '10.1.0.8:5353'].map(
      (s) => `192.0.2.1:53 = ${s}`,
    );
    expect(staleAfter(states, flows)).toEqual(['192.0.2.1:53 = 10.1.0.2:5353']);
  });

  it('internalTrafficPolicy Local: only those to endpoints here go on, external ones all', () => {
    const endpoints = pods([{ address: '10.1.0.1', nodeName }, '10.1.0.2']);
    const local: ServiceRecord = { ...exposed, internalTrafficPolicy: 'Local' };
    const states = [
      { services: [exposed], slices: [endpoints] },
      { services: [local], slices: [endpoints] },
    ];
    const flows = [...to('10.1.0.1:5353', '10.1.0.2:5353'), '192.0.2.1:53 = 10.1.0.2:5353'];
    expect(staleAfter(states, flows)).toEqual(to('10.1.0.2:5353'));
  });

  it('node ports: those to addresses node ports answer on, no others (kubernetes#49881)', () => {
    const states = [
      { ...before, services: [exposed] },
      { services: [exposed], slices: [pods(['10.1.0.1'])] },
    ];
    const flows = [
      '192.168.0.2:30053 = 10.1.0.1:5353',
      '192.168.0.2:30053 = 10.1.0.2:5353',
      '10.0.0.2:30053 = 10.1.0.2:5353',
      '10.0.0.2:30053 = 10.0.0.2:30053',
      '10.0.0.2:30054 = 10.1.0.2:5353',
      '8.8.8.8:30053 = 8.8.8.8:30053',
      '192.168.0.3:30053 = 10.1.0.2:5353',
      '127.0.0.1:30053 = 127.0.0.1:30053',
    ];
    expect(staleAfter(states, flows)).toEqual(flows.slice(1, 4));
  });

  it('a node port is gone: a program of the host that has it now keeps its flows', () => {
    const flows = ['10.0.0.2:30053 = 10.1.0.1:5353', '10.0.0.2:30053 = 10.0.0.2:30053'];
    expect(staleAfter([{ ...before, services: [exposed] }, before], flows)).toEqual(
      flows.slice(0, 1),
    );
  });

  it('an external address that node ports answer on too: flows to either go on', () => {
    const one = dns({ externalIPs: ['192.168.0.2'] });
    const ports = [{ name: 'dns', protocol: 'UDP', port: 54, nodePort: 53 }] as const;
    const two = { ...dns({ ports }), name: 'two', clusterIPs: ['172.30.0.11'] };
    const other = { ...pods(['10.1.0.8']), name: 'two-v4', serviceName: 'two' };
    const states = [
      { services: [one, two], slices: [pods(['10.1.0.1', '10.1.0.2']), other] },
      { services: [one, two], slices: [pods(['10.1.0.1']), other] },
    ];
    const flows = ['10.1.0.1:5353', '10.1.0.2:5353', '10.1.0.8:5353'].map(
      (s) => `192.168.0.2:53 = ${s}`,
    );
    expect(staleAfter(states, flows)).toEqual(['192.168.0.2:53 = 10.1.0.2:5353']);
  });

  it('no address for node ports: nothing to look at', () => {
    const { changes, rules } = history([{ ...before, services: [exposed] }, before]);
    const doubtful = doubtfulDestinations(changes).values();
    const review = reviewFlows(doubtful, rules, []);
    expect(review.destinations.map((d) => d.port)).toEqual([53, 53]);
  });
});

/** The Services that real packets are sent to: one of each kind, in both families. */
import { families } from '#pkg/ip/address.ts';
import type { ServiceRecord } from '#pkg/kube/types.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { local, service, slice, type Cluster } from './records.ts';

/** Pod n of the small cluster, or the node towards it; 203.0.113.130 is another client outside. */
export const nets = {
  ip: {
    vip: '172.30.0.',
    balancer: '198.51.100.',
    pod: (n: number): string => `10.1.${n}.2`,
    gateway: (n: number): string => `10.1.${n}.1`,
    node: '203.0.113.1',
    outside: '203.0.113.2',
    blocked: '203.0.113.130',
    loopback: '127.0.0.1',
  },
  ip6: {
    vip: 'fd00:96::',
    balancer: '2001:db8:7::',
    pod: (n: number): string => `fd00:10:${n}::2`,
    gateway: (n: number): string => `fd00:10:${n}::1`,
    node: '2001:db8::1',
    outside: '2001:db8::2',
    blocked: '2001:db8::1:130',
    loopback: '::1',
  },
} as const;

/** Addresses of a Service end in its number: 172.30.0.7, fd00:96::7; 198.51.100.7 outside. */
export const numbers = {
  both: 1,
  none: 2,
  self: 3,
  sticky: 4,
  internal: 5,
  internalFar: 6,
  external: 7,
  externalFar: 8,
  ranges: 9,
  outside: 10,
  ending: 11,
  datagrams: 12,
  shortSticky: 13,
  targets: 14,
  lasting: 15,
} as const;

export const nodePorts = { both: 30080, none: 30081, external: 30087, externalFar: 30088, datagrams: 30080 };

type Name = keyof typeof numbers;

const one = 2;
const two = 3;

function entry(name: Name, fields: Partial<ServiceRecord> & { nodePort?: number } = {}): ServiceRecord {
  const { nodePort = 0, ...rest } = fields;
  return service(`demo/${name}`, {
    clusterIPs: families.map((f) => `${nets[f].vip}${numbers[name]}`),
    ports: [{ name: 'web', protocol: 'TCP', port: 80, nodePort }],
    ...(nodePort === 0 ? {} : { type: 'NodePort' }),
    ...rest,
  });
}

type State = Parameters<typeof slice>[1][number] & object;

/** A slice a family; an endpoint by the number of its pod. */
function slices(
  name: Name,
  endpoints: readonly number[],
  fields: { state?: (address: string, pod: number) => State; protocol?: 'UDP'; port?: number } = {},
): ReturnType<typeof slice>[] {
  const { state = (address) => ({ address }), protocol = 'TCP', port = 8080 } = fields;
  return families.map((family) =>
    slice(
      `demo/${name}`,
      endpoints.map((pod) => state(nets[family].pod(pod), pod)),
      {
        ports: [{ name: 'web', protocol, port }],
        addressType: family === 'ip' ? 'IPv4' : 'IPv6',
        name: `${name}-${family}-${port}-${endpoints.join('-')}`,
      },
    ),
  );
}

/** Pod one is on this node; both are in the namespaces beside it. */
const oneIsHere = (address: string, pod: number): State =>
  pod === one ? local(address) : { address };
const ingress = (name: Name): ServiceRecord['loadBalancerIngress'] =>
  families.map((f) => ({ ip: `${nets[f].balancer}${numbers[name]}`, ipMode: 'VIP' }));
const externalLocal = { type: 'LoadBalancer', externalTrafficPolicy: 'Local' } as const;

export const packetServices: Required<Omit<Cluster, 'zone'>> = {
  services: [
    entry('both', { nodePort: nodePorts.both }),
    entry('none', {
      nodePort: nodePorts.none,
      type: 'LoadBalancer',
      loadBalancerIngress: ingress('none'),
    }),
    entry('self'),
    entry('sticky', { affinitySeconds: 60 }),
    entry('internal', { internalTrafficPolicy: 'Local' }),
    entry('internalFar', { internalTrafficPolicy: 'Local' }),
    entry('external', {
      ...externalLocal,
      nodePort: nodePorts.external,
      type: 'LoadBalancer',
      loadBalancerIngress: ingress('external'),
    }),
    entry('externalFar', {
      ...externalLocal,
      nodePort: nodePorts.externalFar,
      type: 'LoadBalancer',
      loadBalancerIngress: ingress('externalFar'),
    }),
    entry('ranges', {
      type: 'LoadBalancer',
      loadBalancerIngress: ingress('ranges'),
      loadBalancerSourceRanges: ['203.0.113.0/25', '2001:db8::/112'],
    }),
    entry('outside', { externalIPs: families.map((f) => `${nets[f].balancer}${numbers.outside}`) }),
    entry('ending'),
    entry('datagrams', {
      type: 'NodePort',
      ports: [{ name: 'web', protocol: 'UDP', port: 80, nodePort: nodePorts.datagrams }],
    }),
    entry('shortSticky', { affinitySeconds: 1 }),
    entry('targets'),
    entry('lasting'),
  ],
  slices: [
    ...(['both', 'sticky', 'ranges', 'outside', 'shortSticky'] as const).flatMap((name) =>
      slices(name, [one, two]),
    ),
    ...slices('self', [one], { state: oneIsHere }),
    ...slices('internal', [one, two], { state: oneIsHere }),
    ...slices('internalFar', [two], { state: oneIsHere }),
    ...slices('external', [one, two], { state: oneIsHere }),
    ...slices('externalFar', [two], { state: oneIsHere }),
    ...slices('ending', [one], { state: (address) => ({ address, terminating: true }) }),
    ...slices('ending', [two], {
      state: (address) => ({ address, terminating: true, serving: false }),
    }),
    ...slices('datagrams', [one, two], { protocol: 'UDP' }),
    ...slices('targets', [one]),
    ...slices('targets', [two], { port: 8082 }),
    ...slices('lasting', [one], { port: 8081 }),
  ],
};

export const podDetector = {
  kind: 'cluster-cidr',
  prefixes: [parsePrefix('10.1.0.0/16'), parsePrefix('fd00:10::/32')],
} as const;

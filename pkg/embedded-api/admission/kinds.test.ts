import { beforeEach, describe, expect, it } from 'vitest';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { createAccess, type ApiAccess } from '#pkg/embedded-api/access.ts';
import { bootstrap } from '#pkg/embedded-api/bootstrap.ts';
import { createCore } from '#pkg/embedded-api/core.ts';
import { objectAt, type JsonObject } from '#pkg/embedded-api/json.ts';

let api: ApiAccess;
beforeEach(() => {
  const clock = new FakeClock(Date.UTC(2026, 0, 1));
  const core = createCore({
    serviceCIDRs: [],
    compactionWindowEvents: 100,
    clock,
    saved: undefined,
  });
  api = createAccess(core);
  bootstrap(api, { serviceCIDRs: [], apiServer: undefined });
});

function make(apiVersion: string, kind: string, rest: JsonObject): JsonObject {
  return { apiVersion, kind, metadata: { name: 'x' }, ...rest };
}

const image = { name: 'c', image: 'nginx:1.27' };

/** What was wrong with an object that should be refused. */
function refusal(object: JsonObject): string {
  try {
    api.create(object);
  } catch (error) {
    return (error as Error).message;
  }
  return 'admitted';
}

describe('objects refused', () => {
  it.each<[string, [string, string, JsonObject], RegExp]>([
    [
      'a Pod without containers',
      ['v1', 'Pod', { spec: {} }],
      /^Pod "x" is invalid: spec.containers: Required value$/,
    ],
    [
      'a Pod with a bad port',
      ['v1', 'Pod', { spec: { containers: [{ ...image, ports: [{ containerPort: 70000 }] }] } }],
      /spec.containers\[0\].ports\[0\].containerPort: Invalid value: 70000: must be between/,
    ],
    [
      'a Pod with one name twice',
      ['v1', 'Pod', { spec: { containers: [image, image] } }],
      /spec.containers\[1\].name: Duplicate value: "c"/,
    ],
    [
      'a Node with host bits',
      ['v1', 'Node', { spec: { podCIDR: '10.244.1.1/24' } }],
      /spec.podCIDR: Invalid value: "10.244.1.1\/24": must not have bits set/,
    ],
    [
      'a Node with one family twice',
      ['v1', 'Node', { spec: { podCIDRs: ['10.1.0.0/24', '10.2.0.0/24'] } }],
      /no more than one CIDR for each IP family/,
    ],
    [
      'a Node with podCIDR apart',
      ['v1', 'Node', { spec: { podCIDR: '10.1.0.0/24', podCIDRs: ['10.2.0.0/24'] } }],
      /spec.podCIDRs\[0\]: Invalid value: "10.2.0.0\/24": must match `podCIDR`/,
    ],
    [
      'a slice of the wrong family',
      [
        'discovery.k8s.io/v1',
        'EndpointSlice',
        { addressType: 'IPv6', endpoints: [{ addresses: ['10.0.0.1'] }] },
      ],
      /endpoints\[0\].addresses\[0\]: Invalid value: "10.0.0.1": must be an IPv6 address/,
    ],
    [
      'a slice without type',
      ['discovery.k8s.io/v1', 'EndpointSlice', { endpoints: [] }],
      /addressType: Required value/,
    ],
    [
      'a slice with unnamed ports',
      [
        'discovery.k8s.io/v1',
        'EndpointSlice',
        { addressType: 'IPv4', ports: [{ port: 1 }, { port: 2 }] },
      ],
      /ports\[1\].name: Duplicate value: ""/,
    ],
    [
      'a policy with a hole outside',
      [
        'networking.k8s.io/v1',
        'NetworkPolicy',
        {
          spec: {
            ingress: [{ from: [{ ipBlock: { cidr: '10.0.0.0/8', except: ['11.0.0.0/8'] } }] }],
          },
        },
      ],
      /spec.ingress\[0\].from\[0\].ipBlock.except\[0\]: Invalid value: "11.0.0.0\/8": must be a strict subset/,
    ],
    [
      'a policy with an empty peer',
      ['networking.k8s.io/v1', 'NetworkPolicy', { spec: { egress: [{ to: [{}] }] } }],
      /must specify a peer/,
    ],
    [
      'a policy with a backward range',
      [
        'networking.k8s.io/v1',
        'NetworkPolicy',
        { spec: { ingress: [{ ports: [{ port: 90, endPort: 80 }] }] } },
      ],
      /endPort: Invalid value: 80: must be greater than or equal/,
    ],
    [
      'a policy with a bad expression',
      [
        'networking.k8s.io/v1',
        'NetworkPolicy',
        { spec: { podSelector: { matchExpressions: [{ key: 'a', operator: 'In' }] } } },
      ],
      /matchExpressions\[0\].values: Required value: must be specified when `operator` is 'In' or 'NotIn'/,
    ],
    [
      'a Lease of no time',
      ['coordination.k8s.io/v1', 'Lease', { spec: { leaseDurationSeconds: 0 } }],
      /must be greater than 0/,
    ],
    [
      'a label that is none',
      ['v1', 'ConfigMap', { metadata: { name: 'x', labels: { a: '-' } } }],
      /metadata.labels.a: Invalid value: "-"/,
    ],
    [
      'a name that is none',
      ['v1', 'ConfigMap', { metadata: { name: 'X_' } }],
      /metadata.name: Invalid value: "X_": a lowercase RFC 1123 subdomain/,
    ],
    ['no name at all', ['v1', 'ConfigMap', { metadata: {} }], /name or generateName is required/],
    ['a Namespace with dots', ['v1', 'Namespace', { metadata: { name: 'a.b' } }], /RFC 1123 label/],
    [
      'an unknown Namespace',
      ['v1', 'ConfigMap', { metadata: { name: 'x', namespace: 'nope' } }],
      /^namespaces "nope" not found$/,
    ],
  ])('%s', (_name, object, message) => {
    expect(refusal(make(...object))).toMatch(message);
  });
});

describe('defaults', () => {
  it('of a Pod', () => {
    const pod = api.create(
      make('v1', 'Pod', { spec: { containers: [{ ...image, ports: [{ containerPort: 80 }] }] } }),
    );
    expect(pod['status']).toEqual({ phase: 'Pending', qosClass: 'BestEffort' });
    expect(pod['spec']).toMatchObject({
      restartPolicy: 'Always',
      dnsPolicy: 'ClusterFirst',
      terminationGracePeriodSeconds: 30,
      containers: [
        { imagePullPolicy: 'IfNotPresent', ports: [{ containerPort: 80, protocol: 'TCP' }] },
      ],
    });
  });

  it.each([
    ['nginx', 'Always'],
    ['nginx:latest', 'Always'],
    ['registry:5000/nginx', 'Always'],
    ['nginx:1', 'IfNotPresent'],
    ['nginx@sha256:abc', 'IfNotPresent'],
  ])('image %s is pulled %s', (name, policy) => {
    const pod = api.create(
      make('v1', 'Pod', { spec: { containers: [{ name: 'c', image: name }] } }),
    );
    expect(pod['spec']).toMatchObject({ containers: [{ imagePullPolicy: policy }] });
  });

  it('of a Node, a policy, a Namespace', () => {
    const node = api.create(
      make('v1', 'Node', { spec: { podCIDRs: ['10.1.0.0/24', 'fd00::/64'] } }),
    );
    expect(objectAt(node, 'spec')['podCIDR']).toBe('10.1.0.0/24');
    const policy = api.create(
      make('networking.k8s.io/v1', 'NetworkPolicy', {
        spec: { egress: [{ ports: [{ port: 53 }] }] },
      }),
    );
    expect(policy['spec']).toEqual({
      podSelector: {},
      policyTypes: ['Ingress', 'Egress'],
      egress: [{ ports: [{ port: 53, protocol: 'TCP' }] }],
    });
    const namespace = api.create(make('v1', 'Namespace', {}));
    expect(namespace.metadata.labels).toEqual({ 'kubernetes.io/metadata.name': 'x' });
    expect(namespace['status']).toEqual({ phase: 'Active' });
  });
});

describe('changes', () => {
  const podName = { apiVersion: 'v1', kind: 'Pod', name: 'x' };

  it('of a Pod are only few', () => {
    api.create(make('v1', 'Pod', { spec: { containers: [image] } }));
    const patch = (spec: JsonObject) => (): unknown => api.patch(podName, 'strategic', { spec });
    expect(patch({ containers: [{ name: 'c', image: 'nginx:2' }] })).not.toThrow();
    expect(patch({ nodeName: 'n1' })).not.toThrow();
    expect(patch({ nodeName: 'n2' })).toThrow(/pod updates may not change fields other than/);
    expect(patch({ hostNetwork: true })).toThrow(/Forbidden/);
  });

  it('of podCIDRs are none once they are set', () => {
    api.create(make('v1', 'Node', {}));
    const name = { apiVersion: 'v1', kind: 'Node', name: 'x' };
    const set = (podCIDRs: string[]) => (): unknown =>
      api.patch(name, 'merge', { spec: { podCIDR: podCIDRs[0] ?? null, podCIDRs } });
    expect(set(['10.1.0.0/24'])).not.toThrow();
    expect(set(['10.2.0.0/24'])).toThrow(/may not change podCIDR/);
  });

  it('of spec and status stay apart', () => {
    const made = api.create(
      make('v1', 'Pod', { spec: { containers: [image] }, status: { phase: 'Running' } }),
    );
    expect(objectAt(made, 'status')['phase']).toBe('Pending');
    const status = { podIP: '10.0.0.7', phase: 'Running' };
    const reported = api.update(
      { ...made, spec: { containers: [] }, status },
      { subresource: 'status' },
    );
    expect(reported['spec']).toEqual(made['spec']);
    expect(reported['status']).toEqual({ ...status, podIPs: [{ ip: '10.0.0.7' }] });
    expect(reported.metadata.generation).toBe(1);
    const changed = api.update({
      ...reported,
      metadata: { ...reported.metadata, labels: { a: 'b' } },
      status: {},
    });
    expect(changed['status']).toEqual(reported['status']);
    expect(changed.metadata.labels).toEqual({ a: 'b' });
  });

  it('that change nothing make no new version', () => {
    const made = api.create(make('v1', 'ConfigMap', { data: { a: '1' } }));
    expect(api.update({ ...made }).metadata.resourceVersion).toBe(made.metadata.resourceVersion);
    const changed = api.update({ ...made, data: { a: '2' } });
    expect(Number(changed.metadata.resourceVersion)).toBeGreaterThan(
      Number(made.metadata.resourceVersion),
    );
    expect(changed.metadata.generation).toBe(2);
  });
});

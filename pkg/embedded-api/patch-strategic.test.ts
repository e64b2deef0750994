import { describe, expect, it } from 'vitest';
import type { JsonObject } from './json.ts';
import { strategicMergePatch } from './patch-strategic.ts';

const service = {
  spec: {
    selector: { app: 'web' },
    ports: [
      { port: 80, name: 'http', nodePort: 30080 },
      { port: 443, name: 'https' },
    ],
  },
};

function ports(patch: JsonObject): unknown {
  return (strategicMergePatch(service, { spec: patch }, 'services') as typeof service).spec.ports;
}

describe('strategicMergePatch() of a Service merges ports by number', () => {
  const [http, https] = service.spec.ports;

  it('changes one and keeps the others', () => {
    expect(ports({ ports: [{ port: 80, name: 'web' }] })).toEqual([
      { ...http, name: 'web' },
      https,
    ]);
  });

  it('adds an unknown one at the end', () => {
    expect(ports({ ports: [{ port: 8080, name: 'alt' }] })).toEqual([
      http,
      https,
      { port: 8080, name: 'alt' },
    ]);
  });

  it('removes one by $patch: delete', () => {
    expect(ports({ ports: [{ $patch: 'delete', port: 80 }] })).toEqual([https]);
  });

  it('replaces the list by $patch: replace', () => {
    expect(ports({ ports: [{ $patch: 'replace' }, { port: 1 }] })).toEqual([{ port: 1 }]);
  });

  it('orders by $setElementOrder, new ones included', () => {
    const order = [{ port: 443 }, { port: 8080 }, { port: 80 }];
    expect(ports({ '$setElementOrder/ports': order, ports: [{ port: 8080 }] })).toEqual([
      https,
      { port: 8080 },
      http,
    ]);
  });

  it('orders without any change of items', () => {
    expect(ports({ '$setElementOrder/ports': [{ port: 443 }, { port: 80 }] })).toEqual([
      https,
      http,
    ]);
  });

  it('refuses an item without its key', () => {
    expect(() => ports({ ports: [{ name: 'x' }] })).toThrow(/merge key: port/);
  });

  it('clears a list that is set to null', () => {
    expect(ports({ ports: null })).toBeUndefined();
  });
});

it('strategicMergePatch() keeps the place of items the patch does not know', () => {
  const pod = { spec: { containers: [{ name: 'a' }, { name: 'injected' }, { name: 'b' }] } };
  const patch = {
    spec: {
      '$setElementOrder/containers': [{ name: 'a' }, { name: 'b' }],
      containers: [{ name: 'b', image: 'new' }],
    },
  };
  expect(strategicMergePatch(pod, patch, 'pods')).toEqual({
    spec: { containers: [{ name: 'a' }, { name: 'injected' }, { name: 'b', image: 'new' }] },
  });
});

it('strategicMergePatch() merges nested keyed lists', () => {
  const pod = {
    spec: {
      containers: [
        {
          name: 'a',
          env: [
            { name: 'X', value: '1' },
            { name: 'Y', value: '2' },
          ],
        },
      ],
    },
  };
  const patch = { spec: { containers: [{ name: 'a', env: [{ name: 'X', value: '9' }] }] } };
  expect(strategicMergePatch(pod, patch, 'pods')).toEqual({
    spec: {
      containers: [
        {
          name: 'a',
          env: [
            { name: 'X', value: '9' },
            { name: 'Y', value: '2' },
          ],
        },
      ],
    },
  });
});

it('strategicMergePatch() treats finalizers as a set', () => {
  const node = { metadata: { finalizers: ['a', 'b'] } };
  const add = { metadata: { finalizers: ['b', 'c'] } };
  expect(strategicMergePatch(node, add, 'nodes')).toEqual({
    metadata: { finalizers: ['a', 'b', 'c'] },
  });
  const remove = { metadata: { '$deleteFromPrimitiveList/finalizers': ['a'] } };
  expect(strategicMergePatch(node, remove, 'nodes')).toEqual({ metadata: { finalizers: ['b'] } });
});

it('strategicMergePatch() replaces atomic lists and $patch: replace objects', () => {
  const slice = { endpoints: [{ addresses: ['10.0.0.1'] }], ports: [{ port: 80 }] };
  expect(
    strategicMergePatch(slice, { ports: [{ port: 81 }] }, 'endpointslices.discovery.k8s.io'),
  ).toEqual({ endpoints: [{ addresses: ['10.0.0.1'] }], ports: [{ port: 81 }] });
  expect(
    strategicMergePatch(
      service,
      { spec: { selector: { $patch: 'replace', tier: 'x' } } },
      'services',
    ),
  ).toEqual({ spec: { ...service.spec, selector: { tier: 'x' } } });
});

it('strategicMergePatch() keeps only $retainKeys', () => {
  const pod = { spec: { volumes: [{ name: 'v', emptyDir: {} }] } };
  const volumes = [{ $retainKeys: ['name', 'hostPath'], name: 'v', hostPath: { path: '/x' } }];
  expect(strategicMergePatch(pod, { spec: { volumes } }, 'pods')).toEqual({
    spec: { volumes: [{ name: 'v', hostPath: { path: '/x' } }] },
  });
});

it('strategicMergePatch() writes no directive into a new object', () => {
  const patch = {
    spec: { ports: [{ port: 1, $patch: 'merge' }], '$setElementOrder/ports': [{ port: 1 }] },
  };
  expect(strategicMergePatch({}, patch, 'services')).toEqual({ spec: { ports: [{ port: 1 }] } });
});

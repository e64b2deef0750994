import { describe, expect, it } from 'vitest';
import { builtinKindInfos } from './builtin-kinds.ts';
import type { JsonObject } from './json.ts';
import type { KubeObject } from './object.ts';
import { age, columnDefinitions, tableRow } from './table.ts';

it.each([
  [0, '0s'],
  [119, '119s'],
  [120, '2m'],
  [192, '3m12s'],
  [600, '10m'],
  [179 * 60, '179m'],
  [3 * 3600, '3h'],
  [3 * 3600 + 300, '3h5m'],
  [9 * 3600 + 300, '9h'],
  [47 * 3600, '47h'],
  [2 * 86_400 + 3 * 3600, '2d3h'],
  [30 * 86_400, '30d'],
  [800 * 86_400, '2y'],
  [-5, '0s'],
])('%d seconds ago is written %s', (seconds, text) => {
  expect(age(1_000_000, 1_000_000 + seconds * 1000)).toBe(text);
});

describe('rows of kubectl get', () => {
  function cells(kindName: string, rest: JsonObject): unknown {
    const kind = builtinKindInfos.find((info) => info.kind === kindName);
    if (kind === undefined) throw new Error(`no kind ${kindName}`);
    const metadata = {
      name: 'x',
      uid: '',
      resourceVersion: '',
      creationTimestamp: '1970-01-01T00:00:00Z',
    };
    const object = { apiVersion: 'v1', kind: kindName, metadata, ...rest } as KubeObject;
    const names = columnDefinitions(kind).map((column) => column['name']);
    const row = tableRow(kind, object, 'None', 60_000)['cells'] as unknown[];
    return Object.fromEntries(names.map((name, i) => [name, row[i]]));
  }

  it('show a Service with ports and addresses', () => {
    const spec = {
      type: 'LoadBalancer',
      clusterIPs: ['10.96.0.1', 'fd00::1'],
      ports: [{ port: 80, nodePort: 30080, protocol: 'TCP' }],
    };
    expect(cells('Service', { spec })).toMatchObject({
      Name: 'x',
      Type: 'LoadBalancer',
      'Cluster-IP': '10.96.0.1,fd00::1',
      'External-IP': '<pending>',
      'Port(s)': '80:30080/TCP',
      Age: '60s',
      Selector: '<none>',
    });
  });

  it('show a Node with readiness and addresses', () => {
    const status = {
      conditions: [{ type: 'Ready', status: 'True' }],
      addresses: [{ type: 'InternalIP', address: '192.0.2.1' }],
    };
    expect(cells('Node', { spec: { unschedulable: true }, status })).toMatchObject({
      Status: 'Ready,SchedulingDisabled',
      Roles: '<none>',
      'Internal-IP': '192.0.2.1',
    });
  });

  it('show many endpoints as the first few', () => {
    const endpoints = Array.from({ length: 5 }, (_, i) => ({ addresses: [`10.0.0.${i}`] }));
    expect(cells('EndpointSlice', { addressType: 'IPv4', endpoints })).toMatchObject({
      Ports: '<unset>',
      Endpoints: '10.0.0.0,10.0.0.1,10.0.0.2 + 2 more...',
    });
  });
});

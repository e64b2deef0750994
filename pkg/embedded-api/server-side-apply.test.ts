import { beforeEach, describe, expect, it } from 'vitest';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { createAccess, type ApiAccess } from './access.ts';
import { bootstrap } from './bootstrap.ts';
import { createCore, type Core } from './core.ts';
import { objectAt, type JsonObject } from './json.ts';
import { applyObject } from './server-side-apply.ts';

let api: ApiAccess;
let core: Core;
beforeEach(() => {
  const serviceCIDRs = ['10.96.0.0/16'];
  core = createCore({
    serviceCIDRs,
    compactionWindowEvents: 100,
    clock: new FakeClock(),
    saved: undefined,
  });
  api = createAccess(core);
  bootstrap(api, { serviceCIDRs, apiServer: undefined });
});

function apply(kindName: string, body: JsonObject, fieldManager = 'a', force = false): JsonObject {
  const kind = core.kinds.byKind('v1', kindName);
  if (kind === undefined) throw new Error(`no kind ${kindName}`);
  const ref = { kind, namespace: 'default', name: 'x' };
  return applyObject(
    core,
    ref,
    { apiVersion: 'v1', kind: kindName, ...body },
    { fieldManager, force },
  ).object;
}

describe('server-side apply', () => {
  it('creates what is not there', () => {
    const made = apply('ConfigMap', { metadata: { labels: { l: '1' } }, data: { a: '1' } });
    expect(made).toMatchObject({ metadata: { name: 'x', labels: { l: '1' } }, data: { a: '1' } });
  });

  it('removes what its manager leaves out, and nothing else', () => {
    apply('ConfigMap', { metadata: { labels: { mine: '1' } }, data: { a: '1', b: '2' } });
    apply('ConfigMap', { data: { c: '3', b: '2' } }, 'other');
    const name = { apiVersion: 'v1', kind: 'ConfigMap', name: 'x' };
    api.patch(name, 'merge', { metadata: { labels: { theirs: '2' } } });
    const after = apply('ConfigMap', { data: { d: '4' } });
    expect(after['data']).toEqual({ b: '2', c: '3', d: '4' });
    expect(objectAt(after, 'metadata')['labels']).toEqual({ theirs: '2' });
  });

  it('merges ports by number and protocol and removes the ones left out', () => {
    const port = (number: number, more: JsonObject = {}): JsonObject => ({
      port: number,
      name: `p${number}`,
      ...more,
    });
    apply('Service', { spec: { ports: [port(80), port(53, { protocol: 'UDP' })] } });
    const after = apply('Service', { spec: { ports: [port(81), port(80, { targetPort: 8080 })] } });
    expect(objectAt(after, 'spec')['ports']).toEqual([
      { port: 81, name: 'p81', protocol: 'TCP', targetPort: 81 },
      { port: 80, name: 'p80', protocol: 'TCP', targetPort: 8080 },
    ]);
    expect(objectAt(after, 'spec')['clusterIP']).toMatch(/^10\.96/);
  });

  it('refuses to change what another manager applied, unless forced', () => {
    apply('ConfigMap', { data: { a: '1', b: '1' } });
    const change = (force: boolean) => (): JsonObject =>
      apply('ConfigMap', { data: { a: '2' } }, 'other', force);
    expect(change(false)).toThrow(/^Apply failed with 1 conflict: conflict with "a": \.data\.a$/);
    expect(change(true)()['data']).toEqual({ a: '2', b: '1' });
    // The field went over: leaving it out no longer removes it.
    expect(apply('ConfigMap', { data: { b: '1' } })['data']).toEqual({ a: '2', b: '1' });
  });

  it('shares a field both want alike', () => {
    apply('ConfigMap', { data: { a: '1' } });
    apply('ConfigMap', { data: { a: '1' } }, 'other');
    expect(apply('ConfigMap', {})['data']).toEqual({ a: '1' });
    expect(apply('ConfigMap', {}, 'other')['data']).toBeUndefined();
  });

  it('again with the same configuration changes nothing', () => {
    const first = apply('ConfigMap', { data: { a: '1' } });
    expect(apply('ConfigMap', { data: { a: '1' } })).toBe(first);
  });

  it('keeps owners through an update that does not know of them', () => {
    const made = apply('ConfigMap', { data: { a: '1', b: '1' } });
    api.update({
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'x' },
      data: { a: '1', b: '1', c: '1' },
    });
    expect(apply('ConfigMap', { data: { a: '1' } })['data']).toEqual({ a: '1', c: '1' });
    expect(objectAt(made, 'metadata')['managedFields']).toMatchObject([
      { manager: 'a', operation: 'Apply', fieldsV1: { 'f:data': { 'f:a': {}, 'f:b': {} } } },
    ]);
  });

  it('honours the version it was made from', () => {
    apply('ConfigMap', { data: { a: '1' } });
    expect(() =>
      apply('ConfigMap', { metadata: { resourceVersion: '1' }, data: { a: '2' } }),
    ).toThrow(expect.objectContaining({ code: 'Conflict' }));
  });
});

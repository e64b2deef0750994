import { describe, expect, it } from 'vitest';
import type { KubeObject } from './object.ts';
import { parseFieldSelector, parseLabelSelector } from './selectors.ts';

function object(labels: Record<string, string>, more: object = {}): KubeObject {
  const metadata = {
    name: 'x',
    namespace: 'default',
    uid: 'u',
    resourceVersion: '1',
    creationTimestamp: '2026-01-01T00:00:00Z',
    labels,
  };
  return { apiVersion: 'v1', kind: 'Pod', metadata, ...more };
}

describe('parseLabelSelector()', () => {
  const labels = { app: 'web', tier: 'front', 'a.b/c': '', n: '5' };
  it.each([
    ['', true],
    ['app=web', true],
    ['app==web', true],
    ['app=db', false],
    ['app = web , tier = front', true],
    ['app!=web', false],
    ['missing!=x', true],
    ['app', true],
    ['missing', false],
    ['!missing', true],
    ['!app', false],
    ['a.b/c', true],
    ['a.b/c=', true],
    ['app in (db, web),tier', true],
    ['app in (db)', false],
    ['app notin (db,web)', false],
    ['missing notin (db)', true],
    ['n>4', true],
    ['n<5', false],
    ['app>4', false],
  ])('%j selects: %s', (selector, expected) => {
    expect(parseLabelSelector(selector)(object(labels))).toBe(expected);
  });

  it.each(['=web', 'app in web', 'app in (a', ',', 'a b', 'app=(x)', '!app=web'])(
    'refuses %j',
    (selector) => {
      expect(() => parseLabelSelector(selector)).toThrow(
        expect.objectContaining({ httpCode: 400 }),
      );
    },
  );

  it('does not take inherited names for labels', () => {
    expect(parseLabelSelector('constructor')(object({}))).toBe(false);
  });
});

describe('parseFieldSelector()', () => {
  const pod = object({}, { spec: { nodeName: 'a,b', hostNetwork: true }, status: {} });
  it.each([
    ['', true],
    ['metadata.name=x', true],
    ['metadata.name!=x', false],
    ['metadata.namespace=default,metadata.name==x', true],
    ['spec.nodeName=a\\,b', true],
    ['spec.nodeName=a', false],
    ['status.phase=', true],
    ['spec.hostNetwork=true', true],
  ])('%j selects: %s', (selector, expected) => {
    const selectable = ['spec.nodeName', 'status.phase', 'spec.hostNetwork'];
    expect(parseFieldSelector(selector, selectable)(pod)).toBe(expected);
  });

  it('refuses fields the kind does not offer', () => {
    expect(() => parseFieldSelector('spec.image=x', [])).toThrow(/not supported: spec.image/);
  });
});

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { renderTable } from '#pkg/nftables/render.ts';
import { ElementBook, type ElementChange } from './nftables-book.ts';
import { elementSteps, reconcile } from './nftables-reconcile.ts';
import { contentsOf } from './nftables-ruleset.ts';
import { portKey, type ProxiedPort } from './proxied-port.ts';
import { nftablesOptions, table } from './testdata/nftables.ts';
import { portsOf, service, slice, snapshot, type Cluster } from './testdata/records.ts';
import { sixServices } from './testdata/six-services.ts';

it('one Service of each kind gives this table', () => {
  const golden = readFileSync(join(import.meta.dirname, 'testdata/six-services.nft'), 'utf8');
  // The chains that choose among endpoints are the same for every cluster.
  const text = renderTable(table(sixServices)).replaceAll(/\tchain pick-[^}]*\}\n\n?/g, '');
  expect(text.replaceAll(/\tset (?:local-)?(?:services|node-ports)-\d+ \{[^=}]*\}\n\n?/g, '')).toBe(
    golden,
  );
});

it('the order in which Services arrive does not show', () => {
  const reversed = {
    services: sixServices.services.toReversed(),
    slices: sixServices.slices?.toReversed() ?? [],
  };
  expect(renderTable(table(reversed))).toBe(renderTable(table(sixServices)));
});

it('rules do not grow with Services', () => {
  const rules = (cluster: Cluster): number =>
    table(cluster).chains.reduce((sum, chain) => sum + chain.rules.length, 0);
  const many = Array.from({ length: 300 }, (_, i) => i);
  const big: Cluster = {
    services: many.map((i) =>
      service(`ns/s${i}`, { clusterIPs: [`10.96.${i >> 8}.${i & 255}`], affinitySeconds: 60 }),
    ),
    slices: many.map((i) => slice(`ns/s${i}`, [`10.1.${i >> 8}.${i & 255}`])),
  };
  const one = { services: big.services.slice(0, 1), slices: big.slices?.slice(0, 1) ?? [] };
  expect(rules(big)).toBe(rules(one));
});

const portOf = (cluster: Cluster, name: string): ProxiedPort => {
  const port = snapshot(cluster).ports.find((p) => p.name === name);
  if (port === undefined) throw new Error(`there is no Service ${name}`);
  return port;
};
const withEndpoints = (...endpoints: string[]): ProxiedPort =>
  portOf(
    {
      services: [service('a/b', { clusterIPs: ['10.96.0.1'] })],
      slices: [slice('a/b', endpoints)],
    },
    'b',
  );
const script = (changes: readonly ElementChange[]): string[] =>
  elementSteps('ip', changes).map(({ op, set, elements }) => `${op} ${set} ${elements.join(', ')}`);

describe('what a change costs', () => {
  const before = withEndpoints('10.1.0.1', '10.1.0.2', '10.1.0.3');
  const changed = (port: ProxiedPort | undefined): string[] => {
    const book = new ElementBook(nftablesOptions());
    book.put('a/b:p80/tcp', before);
    return script(book.put('a/b:p80/tcp', port));
  };

  it('nothing, for a port that is as it was', () => {
    expect(changed(withEndpoints('10.1.0.1', '10.1.0.2', '10.1.0.3'))).toEqual([]);
  });

  it('one element for one endpoint more', () => {
    const more = withEndpoints('10.1.0.1', '10.1.0.2', '10.1.0.3', '10.1.0.4');
    expect(changed(more)).toEqual([
      'addElements endpoints 10.96.0.1 . tcp . 80 . 3 : 10.1.0.4 . 80',
    ]);
  });

  it('with another number of slots its class too', () => {
    expect(changed(withEndpoints('10.1.0.1', '10.1.0.2'))).toEqual([
      'deleteElements services-4 10.96.0.1 . tcp . 80',
      'deleteElements endpoints 10.96.0.1 . tcp . 80 . 2',
      'addElements services-2 10.96.0.1 . tcp . 80',
    ]);
  });

  it('a slot is emptied and filled where an endpoint is replaced', () => {
    expect(changed(withEndpoints('10.1.0.1', '10.1.0.2', '10.1.0.9'))).toEqual([
      'deleteElements endpoints 10.96.0.1 . tcp . 80 . 2',
      'addElements endpoints 10.96.0.1 . tcp . 80 . 2 : 10.1.0.9 . 80',
    ]);
  });

  it('S109. all of its own when it comes', () => {
    const book = new ElementBook(nftablesOptions());
    expect(script(book.put('a/b:p80/tcp', withEndpoints('10.1.0.1')))).toEqual([
      'addElements cluster-ips 10.96.0.1',
      'addElements plain-services 10.96.0.1 . tcp . 80',
      'addElements services-1 10.96.0.1 . tcp . 80',
      'addElements endpoints 10.96.0.1 . tcp . 80 . 0 : 10.1.0.1 . 80',
    ]);
  });

  it('all of its own when it goes', () => {
    expect(changed(undefined)).toEqual([
      'deleteElements plain-services 10.96.0.1 . tcp . 80',
      'deleteElements services-4 10.96.0.1 . tcp . 80',
      expect.stringMatching(/^deleteElements endpoints (?:\S+ \. tcp \. 80 \. \d(?:, )?){3}$/),
      'deleteElements cluster-ips 10.96.0.1',
    ]);
  });
});

describe('addresses that several ports want', () => {
  const claim = (name: string, clusterIP: string): ProxiedPort =>
    portOf(
      {
        services: [service(name, { clusterIPs: [clusterIP], externalIPs: ['192.0.2.1'] })],
        slices: [slice(name, [`10.1.0.${clusterIP.slice(-1)}`])],
      },
      name.slice(2),
    );

  it('go to the next one when the first is gone, whoever came first', () => {
    const [a, b] = [claim('n/a', '10.96.0.1'), claim('n/b', '10.96.0.2')];
    const book = new ElementBook(nftablesOptions());
    book.put('n/b', b);
    expect(script(book.put('n/a', a)).join('\n')).toContain('192.0.2.1 . tcp . 80 . 0 : 10.1.0.1');
    expect(script(book.put('n/a', undefined)).join('\n')).toContain(
      '192.0.2.1 . tcp . 80 . 0 : 10.1.0.2',
    );
  });

  it('a cluster address stays while one of its ports does', () => {
    const ports = [80, 81].map(
      (port) => ({ name: `p${port}`, protocol: 'TCP', port, nodePort: 0 }) as const,
    );
    const found = snapshot({
      services: [service('n/a', { clusterIPs: ['10.96.0.1'], ports })],
    }).ports;
    const book = new ElementBook(nftablesOptions());
    for (const port of found) book.put(portKey(port), port);
    const [first, second] = found.map((port) => script(book.put(portKey(port), undefined)));
    expect(first).not.toContain('deleteElements cluster-ips 10.96.0.1');
    expect(second).toContain('deleteElements cluster-ips 10.96.0.1');
  });
});

describe('reconcile()', () => {
  const options = nftablesOptions();
  const ports = portsOf(sixServices);
  const units = (have: ReturnType<typeof contentsOf>): ElementChange[][] =>
    [
      ...reconcile(
        new ElementBook(options),
        ports,
        new Map([...have].map(([set, elements]) => [set, new Map(elements)])),
      ),
    ].map((unit) => [...unit]);

  it('finds nothing to do where all is there', () => {
    expect(units(contentsOf(ports, options)).flat()).toEqual([]);
  });

  it('adds what is missing, changes what differs, and deletes what is too much last', () => {
    const have = new Map([...contentsOf(ports, options)].map(([set, e]) => [set, new Map(e)]));
    have.get('plain-services')?.delete('172.30.0.41 . tcp . 80');
    have.get('endpoints')?.set('172.30.0.43 . tcp . 80 . 0', '10.9.9.9 . 80');
    have.get('cluster-ips')?.set('172.30.0.99', '');
    expect(units(have).flatMap((unit) => script(unit))).toEqual([
      'addElements plain-services 172.30.0.41 . tcp . 80',
      'deleteElements endpoints 172.30.0.43 . tcp . 80 . 0',
      'addElements endpoints 172.30.0.43 . tcp . 80 . 0 : 10.180.0.3 . 80',
      'deleteElements cluster-ips 172.30.0.99',
    ]);
  });

  it('a firewall and its ranges come in one transaction, before all else', () => {
    const first = units(new Map()).find((unit) => unit.some(({ set }) => set === 'source-ranges'));
    expect(first?.map(({ set }) => set).toSorted()).toEqual([
      'firewalled-services',
      'source-ranges',
    ]);
  });
});

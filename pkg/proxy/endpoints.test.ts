/** Which endpoints a Service port has, out of all slices. */
import { describe, expect, it } from 'vitest';
import { service, slice, snapshot } from './testdata/records.ts';

const targets = (cluster: Parameters<typeof snapshot>[0]): string =>
  snapshot(cluster)
    .ports.map((p) => `${p.printName} ${p.endpoints.cluster.map((e) => e.target).join(' ')}`)
    .join('\n');
const svc = service('ns1/svc1', { clusterIPs: ['172.30.0.41'] });

describe('endpoints', () => {
  it('S94. of all slices are merged and sorted; order of arrival does not matter', () => {
    const one = slice('ns1/svc1', ['10.1.0.3', '10.1.0.1'], { name: 'a' });
    const two = slice('ns1/svc1', ['10.1.0.2'], { name: 'b' });
    const expected = 'ns1/svc1:p80 10.1.0.1:80 10.1.0.2:80 10.1.0.3:80';
    expect(targets({ services: [svc], slices: [one, two] })).toBe(expected);
    expect(targets({ services: [svc], slices: [two, one] })).toBe(expected);
  });

  it('S99. a target that is ready in one slice and ending in another counts as ready', () => {
    const ready = slice('ns1/svc1', ['10.1.0.1'], { name: 'a' });
    const ending = slice('ns1/svc1', [{ address: '10.1.0.1', terminating: true }], { name: 'b' });
    for (const slices of [
      [ready, ending],
      [ending, ready],
    ]) {
      const [port] = snapshot({ services: [svc], slices }).ports;
      expect(port?.endpoints.cluster).toMatchObject([{ target: '10.1.0.1:80', ready: true }]);
    }
  });

  it.each([
    ['S97. other family', { addressType: 'IPv6' }],
    ['S97. names', { addressType: 'FQDN' }],
    ['S98. no Service', { serviceName: '' }],
    ['another port name', { ports: [{ name: 'other', protocol: 'TCP', port: 80 }] }],
    ['another protocol', { ports: [{ name: 'p80', protocol: 'UDP', port: 80 }] }],
  ] as const)('%s: slices of this are not used', (_, fields) => {
    const slices = [slice('ns1/svc1', ['10.1.0.1'], fields)];
    expect(targets({ services: [svc], slices })).toBe('ns1/svc1:p80 ');
  });
});

/** What becomes of the others when the kernel refuses a part of one port. */
import { beforeEach, describe, expect, it } from 'vitest';
import { service, slice, type Cluster } from '#pkg/proxy/testdata/records.ts';
import { IpvsRig } from './scratch/ipvs-rig.ts';

let rig: IpvsRig;
beforeEach(() => {
  rig = new IpvsRig();
});

describe('a port of which something is refused', () => {
  const many = (...names: number[]): Cluster => ({
    services: names.map((n) => service(`a/s${n}`, { clusterIPs: [`10.96.1.${n}`] })),
    slices: names.map((n) => slice(`a/s${n}`, [`10.1.1.${n}`])),
  });
  const twenty = Array.from({ length: 20 }, (_, i) => i + 1);
  const keyOf = (n: number): string => `a/s${n}:p80/tcp`;

  it.each([
    ['a virtual server', /-A -t 10\.96\.1\.7:/],
    ['an endpoint', /-r 10\.1\.1\.7:/],
    ['a member of a set', /KUBE-CLUSTER-IP 10\.96\.1\.7,/],
    ['an address', /ip addr add 10\.96\.1\.7$/],
    ['an address, as of IPv6', /ip addr add 10\.96\.1\.7$/, 'EADDRNOTAVAIL'],
  ] as const)('is left out and told of, the others are served: %s', async (_, refused, code?) => {
    rig.kernel.refused = refused;
    rig.kernel.addressRefusal = code ?? 'EINVAL';
    await rig.write(many(...twenty));
    expect(rig.parked).toEqual([expect.stringMatching(/^s7: .*refused: /)]);
    expect(rig.kernel.bound.size).toBe(19);
    expect([...(await rig.kernel.servers()).keys()]).toHaveLength(19);
    rig.kernel.take();
    // Nothing is tried again for it, nor found to be missing.
    const { refusals } = rig.kernel;
    expect(await rig.write(many(...twenty), keyOf(3))).toEqual({ kind: 'partial', written: 0 });
    // Nor with other options, which every port is rendered for anew.
    rig.masqueradeAll = true;
    expect(await rig.write(many(...twenty), keyOf(3))).toEqual({ kind: 'full', written: 0 });
    expect(rig.kernel.refusals).toBe(refusals);
    rig.kernel.refused = undefined;
    rig.writer = rig.createWriter();
    await rig.write(many(...twenty.filter((n) => n !== 7)));
    expect(rig.kernel.take()).toEqual([]);
  });

  it('costs those that changed with it nothing, not for a moment', async () => {
    await rig.write(many(...twenty));
    rig.kernel.take();
    rig.kernel.refused = /10\.96\.1\.21:/;
    const moved = [slice('a/s3', ['10.1.1.33']), slice('a/s21', ['10.1.1.21'])];
    const { services, slices = [] } = many(...twenty, 21);
    const rest = slices.filter(({ serviceName }) => !['s3', 's21'].includes(serviceName));
    await rig.write({ services, slices: [...rest, ...moved] }, keyOf(3), keyOf(21));
    expect(rig.parked).toHaveLength(1);
    const lines = rig.kernel.take().filter((line) => /10\.96\.1\.3\b/.test(line));
    expect(lines.filter((line) => !/ -[ae] /.test(line))).toEqual([]);
    expect(lines.slice(-2)).toEqual([
      'ipvsadm -e -t 10.96.1.3:80 -r 10.1.1.33:80 -m -w 1',
      'ipvsadm -e -t 10.96.1.3:80 -r 10.1.1.3:80 -m -w 0',
    ]);
  });

  it.each([
    ['at the start, where others are served already', false],
    ['after a write that failed for another reason', true],
  ])('costs no other anything %s', async (_, isFailedBefore) => {
    await rig.write(many(...twenty.filter((n) => n !== 7)));
    rig.writer = rig.createWriter();
    if (isFailedBefore) {
      rig.kernel.failing = 'servers';
      await expect(rig.write(many(...twenty))).rejects.toThrow('refused: servers');
    }
    rig.kernel.take();
    rig.kernel.refused = /-r 10\.1\.1\.7:/;
    await rig.write(many(...twenty));
    expect(rig.parked).toHaveLength(1);
    expect(rig.kernel.take().filter((line) => !/10\.96\.1\.7\b/.test(line))).toEqual([]);
    expect(rig.kernel.bound.size).toBe(19);
    rig.kernel.refused = undefined;
    // What nobody wants goes in the end, all the same.
    rig.writer = rig.createWriter();
    rig.kernel.refused = /-r 10\.1\.1\.7:/;
    await rig.write(many(6, 7, 8));
    expect([...rig.kernel.bound].toSorted()).toEqual(['10.96.1.6', '10.96.1.8']);
  });

  it.each<[string, Partial<Cluster>, RegExp]>([
    ['its endpoints', { slices: [slice('a/s2', ['10.1.1.22'])] }, /-r 10\.1\.1\.2:/],
    [
      'its Service',
      { services: [service('a/s2', { clusterIPs: ['10.96.1.22'] })] },
      /-A -t 10\.96\.1\.2:/,
    ],
  ])('is tried again at once with a change of %s', async (_, change, refused) => {
    rig.kernel.refused = refused;
    const { services, slices = [] } = many(1, 2);
    await rig.write({ services, slices });
    expect(rig.parked).toHaveLength(1);
    const next = {
      services: [services[0] ?? [], change.services ?? services[1] ?? []].flat(),
      slices: [slices[0] ?? [], change.slices ?? slices[1] ?? []].flat(),
    };
    await rig.write(next, keyOf(2));
    expect(rig.kernel.bound.size).toBe(2);
    expect([...(await rig.kernel.servers()).keys()]).toHaveLength(2);
    expect(rig.parked).toHaveLength(1);
  });

  it('is tried again after ten minutes', async () => {
    rig.kernel.refused = /10\.96\.1\.2:/;
    await rig.write(many(1, 2));
    rig.kernel.refused = undefined;
    expect((await rig.write(many(1, 2), keyOf(1))).written).toBe(0);
    await rig.clock.advance(600_000);
    expect((await rig.write(many(1, 2), keyOf(1))).written).toBeGreaterThan(0);
    expect(rig.kernel.bound.size).toBe(2);
  });

  it('is not blamed when everything is refused, or when the fault is of the moment', async () => {
    rig.kernel.refused = /-A -t/;
    await expect(rig.write(many(...twenty))).rejects.toThrow('refused: ');
    rig.kernel.refused = undefined;
    rig.kernel.failing = 'applySets';
    await expect(rig.write(many(...twenty))).rejects.toThrow('refused: applySets');
    expect(rig.parked).toEqual([]);
    await rig.write(many(...twenty));
    expect(rig.kernel.bound.size).toBe(20);
  });
});

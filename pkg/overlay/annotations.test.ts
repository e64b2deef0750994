import { describe, expect, test } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import { announcementPatch, parseAnnouncement } from './annotations.ts';

const flannel = 'flannel.alpha.coreos.com/';

/** As a flannel 0.28 node writes them, dual stack. */
const flannelNode = {
  'flannel.alpha.coreos.com/backend-type': 'vxlan',
  'flannel.alpha.coreos.com/backend-data': '{"VNI":1,"VtepMAC":"AA:f5:4e:01:02:03"}',
  'flannel.alpha.coreos.com/backend-v6-data': '{"VNI":1,"VtepMAC":"ee:f5:4e:01:02:03"}',
  'flannel.alpha.coreos.com/public-ip': '192.168.1.2',
  'flannel.alpha.coreos.com/public-ipv6': 'fd00::2',
  'flannel.alpha.coreos.com/kube-subnet-manager': 'true',
};

describe('parseAnnouncement()', () => {
  test("134. reads a flannel node's annotations under its prefix", () => {
    expect(parseAnnouncement(flannelNode, 'ip', flannel)).toEqual({
      backend: 'vxlan',
      publicIP: parseAddress('192.168.1.2'),
      vtep: { vni: 1, mac: 'aa:f5:4e:01:02:03' },
    });
    expect(parseAnnouncement(flannelNode, 'ip6', flannel)).toEqual({
      backend: 'vxlan',
      publicIP: parseAddress('fd00::2'),
      vtep: { vni: 1, mac: 'ee:f5:4e:01:02:03' },
    });
  });

  test.each([
    '0.1.2.3',
    '127.0.0.1',
    '224.0.0.1',
    '255.255.255.255',
    '::1',
    'fe80::1',
    'ff02::1',
    '::ffff:10.0.0.1',
  ])('no node is reached at %s', (text) => {
    const family = text.includes(':') ? 'ip6' : 'ip';
    const key = family === 'ip' ? 'public-ip' : 'public-ipv6';
    const annotations = { 'x/backend-type': 'host-gw', [`x/${key}`]: text };
    expect(parseAnnouncement(annotations, family, 'x/')).toBe(
      `Cannot use annotation x/${key} ${JSON.stringify(text)}: expected an ${family === 'ip' ? 'IPv4' : 'IPv6'} address of one host`,
    );
  });

  test('134. finds nothing under another prefix', () => {
    expect(parseAnnouncement(flannelNode, 'ip', 'podwire.dev/')).toBeUndefined();
  });

  test('takes "null" as a family that is not served', () => {
    const annotations = { ...flannelNode, [`${flannel}backend-v6-data`]: 'null' };
    expect(parseAnnouncement(annotations, 'ip6', flannel)).toBeUndefined();
  });

  test.each([
    ['ip', 'public-ip', '0.0.0.0'],
    ['ip6', 'public-ipv6', '::'],
  ] as const)('136. takes no address of %s as a family that is not served', (family, key, none) => {
    // What flannel's host-gw writes of IPv4 in a cluster of IPv6 alone.
    const annotations = {
      'x/backend-type': 'host-gw',
      'x/backend-data': 'null',
      [`x/${key}`]: none,
    };
    expect(parseAnnouncement(annotations, family, 'x/')).toBeUndefined();
  });

  test('a host-gw node announces its address only', () => {
    const annotations = { 'x/backend-type': 'host-gw', 'x/public-ip': '10.0.0.1' };
    expect(parseAnnouncement(annotations, 'ip', 'x/')).toEqual({
      backend: 'host-gw',
      publicIP: parseAddress('10.0.0.1'),
    });
  });

  test.each([
    ['no JSON', '{VNI'],
    ['an array', '[]'],
    ['no MAC', '{"VNI":1}'],
    ['a VNI that is text', '{"VNI":"1","VtepMAC":"aa:f5:4e:01:02:03"}'],
    ['a short MAC', '{"VNI":1,"VtepMAC":"aa:f5:4e:01:02"}'],
    ['a multicast MAC', '{"VNI":1,"VtepMAC":"01:00:5e:00:00:01"}'],
  ])('names the annotation when backend-data is %s', (_, data) => {
    const annotations = { ...flannelNode, [`${flannel}backend-data`]: data };
    expect(parseAnnouncement(annotations, 'ip', flannel)).toBe(
      `Cannot use annotation ${flannel}backend-data ${JSON.stringify(data)}: expected {"VNI":1,"VtepMAC":"02:…"}`,
    );
  });

  test('refuses a public IP of the other family', () => {
    const annotations = { ...flannelNode, [`${flannel}public-ip`]: 'fd00::2' };
    expect(parseAnnouncement(annotations, 'ip', flannel)).toBe(
      `Cannot use annotation ${flannel}public-ip "fd00::2": expected an IPv4 address`,
    );
  });
});

describe('announcementPatch()', () => {
  const want = {
    ip: {
      backend: 'vxlan',
      publicIP: parseAddress('192.168.1.2'),
      vtep: { vni: 1, mac: 'aa:f5:4e:01:02:03' },
    },
  };

  test('writes what is missing, in flannel’s JSON', () => {
    expect(announcementPatch(want, {}, 'podwire.dev/')).toEqual({
      'podwire.dev/backend-type': 'vxlan',
      'podwire.dev/backend-data': '{"VNI":1,"VtepMAC":"aa:f5:4e:01:02:03"}',
      'podwire.dev/public-ip': '192.168.1.2',
    });
  });

  test('is empty when the Node says it already, whatever else it says', () => {
    const have = {
      'podwire.dev/backend-type': 'vxlan',
      'podwire.dev/backend-data': '{"VNI":1,"VtepMAC":"aa:f5:4e:01:02:03"}',
      'podwire.dev/public-ip': '192.168.1.2',
      'y/other': 'z',
    };
    expect(announcementPatch(want, have, 'podwire.dev/')).toEqual({});
  });

  test('removes what a former backend or family left', () => {
    const have = {
      'podwire.dev/backend-type': 'vxlan',
      'podwire.dev/backend-data': '{"VNI":1,"VtepMAC":"aa:f5:4e:01:02:03"}',
      'podwire.dev/public-ip': '192.168.1.2',
      'podwire.dev/public-ipv6': 'fd00::2',
    };
    const hostGw = { ip: { backend: 'host-gw', publicIP: parseAddress('192.168.1.2') } };
    expect(announcementPatch(hostGw, have, 'podwire.dev/')).toEqual({
      'podwire.dev/backend-type': 'host-gw',
      'podwire.dev/backend-data': null,
      'podwire.dev/public-ipv6': null,
    });
  });

  test("136. under flannel's prefix it says so that flannel's nodes take notice", () => {
    const have = Object.fromEntries(Object.entries(flannelNode).filter(([key]) => !/v6/.test(key)));
    const upper = { [`${flannel}backend-data`]: '{"VNI":1,"VtepMAC":"aa:f5:4e:01:02:03"}' };
    expect(announcementPatch(want, { ...have, ...upper }, flannel)).toEqual({});
    expect(announcementPatch(want, {}, flannel)).toHaveProperty(
      [`${flannel}kube-subnet-manager`],
      'true',
    );
  });

  test('136. a VNI is announced in the 16 bits that flannel reads', () => {
    const ip = { ...want.ip, vtep: { vni: 70_000, mac: 'aa:f5:4e:01:02:03' } };
    expect(announcementPatch({ ip }, {}, flannel)).toHaveProperty(
      [`${flannel}backend-data`],
      '{"VNI":4464,"VtepMAC":"aa:f5:4e:01:02:03"}',
    );
  });

  describe('136. flannel of two families takes notice of every change', () => {
    const ip6 = {
      backend: 'vxlan',
      publicIP: parseAddress('fd00::2'),
      vtep: { vni: 1, mac: 'ee:f5:4e:01:02:03' },
    };
    const hostGw = {
      ip: { backend: 'host-gw', publicIP: parseAddress('192.168.1.2') },
      ip6: { backend: 'host-gw', publicIP: parseAddress('fd00::2') },
    };

    type Annotations = Readonly<Record<string, string>>;

    function patched(
      have: Annotations,
      patch: Readonly<Record<string, string | null>>,
    ): Annotations {
      const entries = Object.entries({ ...have, ...patch });
      return Object.fromEntries(entries.flatMap(([key, v]) => (v === null ? [] : [[key, v]])));
    }

    /** flannel pkg/subnet/kube/kube.go, handleUpdateLeaseEvent: what is the same of one family hides all. */
    function notices(before: Annotations, after: Annotations): boolean {
      const differs = (...keys: readonly string[]): boolean =>
        ['backend-type', ...keys].some((key) => before[flannel + key] !== after[flannel + key]);
      return differs('backend-data', 'public-ip') && differs('backend-v6-data', 'public-ipv6');
    }

    /** flannel's own way to its MAC when it takes a node over (GetStoredMacAddresses). */
    function storedMac(data: string | undefined): string | undefined {
      return data?.replaceAll(/^["}]+|["}]+$/g, '').split(':"')[1];
    }

    type Want = Parameters<typeof announcementPatch>[0];
    const moved = parseAddress('192.168.1.9');
    const moved6 = parseAddress('fd00::9');

    test.each<[string, Want, Want]>([
      ['IPv6 that comes later', want, { ...want, ip6 }],
      ['another IPv4 address', { ...want, ip6 }, { ip: { ...want.ip, publicIP: moved }, ip6 }],
      ['another IPv6 address', { ...want, ip6 }, { ...want, ip6: { ...ip6, publicIP: moved6 } }],
      [
        'both at once',
        { ...want, ip6 },
        { ip: { ...want.ip, publicIP: moved }, ip6: { ...ip6, publicIP: moved6 } },
      ],
      ['another backend', { ...want, ip6 }, hostGw],
      [
        'another address with host-gw',
        hostGw,
        { ...hostGw, ip: { ...hostGw.ip, publicIP: moved } },
      ],
    ])('%s, and back', (_, first, second) => {
      let have = patched({}, announcementPatch(first, {}, flannel));
      for (const next of [second, first, second]) {
        const before = have;
        have = patched(have, announcementPatch(next, have, flannel));
        // Where a family goes, flannel has nothing to go by any more.
        if (next.ip6 !== undefined) expect(notices(before, have)).toBe(true);
        for (const family of ['ip', 'ip6'] as const) {
          expect(parseAnnouncement(have, family, flannel)).toEqual(next[family]);
          const key = family === 'ip' ? 'backend-data' : 'backend-v6-data';
          expect(storedMac(have[flannel + key])).toBe(next[family]?.vtep?.mac);
        }
        expect(announcementPatch(next, have, flannel)).toEqual({});
      }
    });

    test('under our own prefix nothing is spelled in two ways', () => {
      const have = patched({}, announcementPatch({ ...want, ip6 }, {}, 'podwire.dev/'));
      const next = { ip: { ...want.ip, publicIP: moved }, ip6 };
      expect(announcementPatch(next, have, 'podwire.dev/')).toEqual({
        'podwire.dev/public-ip': '192.168.1.9',
      });
    });
  });
});

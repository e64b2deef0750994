import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseNetworkConfig } from '#pkg/cni/config.ts';
import type { CniAddRequest } from '#pkg/cni/plugin.ts';
import type { CniResult } from '#pkg/cni/result.ts';
import { formatAddress } from '#pkg/ip/address.ts';
import { formatPrefix } from '#pkg/ip/prefix.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { hostLocalPlugin } from './host-local.ts';

const sys = await openSys();
const plugin = hostLocalPlugin(sys);
const goProgram = '/usr/lib/cni/host-local';
const hasGo = existsSync(goProgram);

let dataDir = '';
beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'podwire-ipam-'));
});
afterEach(() => rmSync(dataDir, { recursive: true, force: true }));

interface Ask {
  readonly id?: string;
  readonly ifName?: string;
  readonly args?: string;
  readonly ipam?: object;
  readonly more?: object;
  readonly cniVersion?: string;
}

const v4 = { ranges: [[{ subnet: '10.1.2.0/24' }]] };
const v4Small = { ranges: [[{ subnet: '10.1.2.0/29' }]] };

function request(ask: Ask): CniAddRequest {
  const { id = 'a', ifName = 'eth0', args = '', ipam = v4, cniVersion = '1.0.0' } = ask;
  const full = { type: 'host-local', dataDir, ...ipam };
  const config = { cniVersion, name: 'net', type: 'x', ipam: full, ...ask.more };
  return {
    containerId: id,
    ifName,
    netns: '/proc/1/ns/net',
    args,
    path: [],
    environment: {},
    config: parseNetworkConfig(JSON.stringify(config)),
  };
}

function add(ask: Ask = {}): string[] {
  return plugin.add(request(ask)).ips.map(({ address }) => formatPrefix(address));
}

function del(ask: Ask = {}): void {
  plugin.del(request(ask));
}

/** Runs Go's host-local on the same directory. */
function go(command: string, ask: Ask = {}): { ips?: { address: string }[]; msg?: string } {
  const { containerId, ifName, config, args } = request(ask);
  const { stdout } = spawnSync(goProgram, [], {
    input: config.text,
    env: {
      CNI_COMMAND: command,
      CNI_CONTAINERID: containerId,
      CNI_IFNAME: ifName,
      CNI_NETNS: '/proc/self/ns/none',
      CNI_PATH: '/usr/lib/cni',
      CNI_ARGS: args,
    },
    encoding: 'utf8',
  });
  return stdout === '' ? {} : (JSON.parse(stdout) as object);
}

function goAdd(ask: Ask = {}): string | undefined {
  return go('ADD', ask).ips?.[0]?.address;
}

function leases(): string[] {
  const directory = join(dataDir, 'net');
  if (!existsSync(directory)) return [];
  return readdirSync(directory)
    .filter((name) => /^[0-9a-f]+[.:]/.test(name))
    .toSorted();
}

function indexEntries(): string[] {
  return readdirSync(join(dataDir, '.podwire/net')).filter((name) => name !== '.stamp');
}

describe('an address that was given back', () => {
  const resting = (): string => join(dataDir, '.podwire-resting/net');
  const ids = ['a', 'b', 'c', 'd', 'e'];

  /** The plugin at another time. */
  function addAt(offsetMs: number, ask: Ask): string[] {
    const later = hostLocalPlugin(sys, () => Date.now() + offsetMs);
    return later.add(request(ask)).ips.map(({ address }) => formatPrefix(address));
  }

  /** All five addresses are taken, then the first is given back, and one that does not rest is free. */
  function fill(ipam: object = v4Small): void {
    for (const id of ids) add({ id, ipam });
    del({ id: 'a', ipam });
    rmSync(join(dataDir, 'net/10.1.2.5'));
  }

  it('rests, while another is free', () => {
    fill();
    expect(readdirSync(resting()).flatMap((at) => readdirSync(join(resting(), at)))).toEqual([
      '10.1.2.2',
    ]);
    expect(addAt(59_000, { id: 'f', ipam: v4Small })).toEqual(['10.1.2.5/29']);
    expect(addAt(59_000, { id: 'g', ipam: v4Small })).toEqual(['10.1.2.2/29']);
    expect(() => add({ id: 'h', ipam: v4Small })).toThrow('no IP addresses available');
  });

  it.each([
    ['rests for a minute', 61_000],
    ['does not rest when the clock was set back', -7_200_000],
  ])('%s', (_, offsetMs) => {
    fill();
    expect(addAt(offsetMs, { id: 'f', ipam: v4Small })).toEqual(['10.1.2.2/29']);
  });

  it('rests as long as the configuration says', () => {
    const ipam = { ...v4Small, cooldownSeconds: 600 };
    fill(ipam);
    expect(addAt(599_000, { id: 'f', ipam })).toEqual(['10.1.2.5/29']);
    del({ id: 'f', ipam });
    expect(addAt(602_000, { id: 'g', ipam })).toEqual(['10.1.2.2/29']);
  });

  it('does not rest where the configuration does not want it', () => {
    const ipam = { ...v4Small, cooldownSeconds: 0 };
    fill(ipam);
    expect(add({ id: 'f', ipam })).toEqual(['10.1.2.2/29']);
    expect(existsSync(resting())).toBe(false);
  });

  it.each([-1, 86_401, 'a minute'])('is not given back by a rest of %j', (cooldownSeconds) => {
    const ipam = { ...v4Small, cooldownSeconds };
    add({ ipam: v4Small });
    expect(() => add({ id: 'b', ipam })).toThrow(/ipam\.cooldownSeconds/);
    del({ ipam });
    expect(leases()).toEqual([]);
  });

  it('comes in the order of giving back, when all rest', () => {
    for (const id of ids) add({ id, ipam: v4Small });
    for (const id of ['d', 'b']) {
      del({ id, ipam: v4Small });
      waitForLaterTimes();
    }
    expect(add({ id: 'f', ipam: v4Small })).toEqual(['10.1.2.5/29']);
    expect(add({ id: 'g', ipam: v4Small })).toEqual(['10.1.2.3/29']);
  });

  it('is forgotten two rests later', () => {
    for (const minutes of [0, 1, 2]) {
      const then = hostLocalPlugin(sys, () => Date.now() + minutes * 60_000);
      then.add(request({}));
      then.del(request({}));
    }
    expect(readdirSync(resting())).toHaveLength(2);
  });

  it('is free at once where nothing can be noted', () => {
    writeFileSync(join(dataDir, '.podwire-resting'), '');
    fill();
    expect(add({ id: 'f', ipam: v4Small })).toEqual(['10.1.2.2/29']);
  });

  it.runIf(hasGo)("is nothing to Go's plugin, which may take it", () => {
    for (const id of ids.slice(0, 4)) add({ id, ipam: v4Small });
    for (const id of ['a', 'b']) del({ id, ipam: v4Small });
    expect(goAdd({ id: 'g', ipam: v4Small })).toBe('10.1.2.6/29');
    expect(goAdd({ id: 'h', ipam: v4Small })).toBe('10.1.2.2/29');
    expect(add({ id: 'i', ipam: v4Small })).toEqual(['10.1.2.3/29']);
    del({ id: 'h', ipam: v4Small });
    expect(leases()).toEqual(['10.1.2.3', '10.1.2.4', '10.1.2.5', '10.1.2.6']);
  });
});

/** Returns when a file that changes now has another time than one that changed before. */
function waitForLaterTimes(): void {
  const probe = join(dataDir, 'probe');
  const touched = (): number => {
    writeFileSync(probe, '');
    return statSync(probe).ctimeMs;
  };
  const before = touched();
  while (touched() <= before);
}

describe('ADD', () => {
  it("68. writes a lease in host-local's format and remembers the last address", () => {
    expect(add()).toEqual(['10.1.2.2/24']);
    const file = join(dataDir, 'net/10.1.2.2');
    expect(readFileSync(file, 'utf8')).toBe('a\r\neth0');
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(readFileSync(join(dataDir, 'net/last_reserved_ip.0'), 'utf8')).toBe('10.1.2.2');
  });

  it('answers with gateway and routes', () => {
    const ipam = { ...v4, routes: [{ dst: '0.0.0.0/0' }, { dst: '10.9.0.0/16', gw: '10.1.2.9' }] };
    const result: CniResult = plugin.add(request({ ipam }));
    expect(result.ips.map((ip) => ip.gateway && formatAddress(ip.gateway))).toEqual(['10.1.2.1']);
    expect(result.routes.map((r) => formatPrefix(r.destination))).toEqual([
      '0.0.0.0/0',
      '10.9.0.0/16',
    ]);
  });

  it('73. gives one address of every range set, IPv6 in its canonical text', () => {
    const ipam = {
      ranges: [
        [{ subnet: '10.1.2.0/24' }],
        [{ subnet: '10.3.0.0/16', rangeStart: '10.3.7.7', gateway: '10.3.9.9' }],
        [{ subnet: 'fd00:0:0:0::/64' }],
      ],
    };
    expect(add({ ipam })).toEqual(['10.1.2.2/24', '10.3.7.7/16', 'fd00::2/64']);
    expect(leases()).toEqual(['10.1.2.2', '10.3.7.7', 'fd00::2']);
    del({ ipam });
    expect(leases()).toEqual([]);
  });

  it('69. gives each interface of a container its own', () => {
    expect(add()).toEqual(['10.1.2.2/24']);
    expect(add({ ifName: 'eth1' })).toEqual(['10.1.2.3/24']);
    del();
    expect(leases()).toEqual(['10.1.2.3']);
  });

  it('70. refuses a second address for the same interface', () => {
    add();
    expect(() => add()).toThrow('10.1.2.2 has been allocated to a, duplicate allocation');
    expect(leases()).toEqual(['10.1.2.2']);
  });

  it('76. never gives network, gateway or broadcast address, and says when all are gone', () => {
    const given = ['a', 'b', 'c', 'd', 'e'].flatMap((id) => add({ id, ipam: v4Small }));
    expect(given).toEqual([2, 3, 4, 5, 6].map((n) => `10.1.2.${n}/29`));
    expect(() => add({ id: 'f', ipam: v4Small })).toThrow(
      'no IP addresses available in range set: 10.1.2.1-10.1.2.6',
    );
  });

  it('77. gives a freed address again as late as possible', () => {
    expect(add({ ipam: v4Small })).toEqual(['10.1.2.2/29']);
    del();
    for (const n of [3, 4, 5, 6, 2, 3]) {
      expect(add({ ipam: v4Small })).toEqual([`10.1.2.${n}/29`]);
      del();
    }
  });

  it('78. goes on from the last range of a set to the first', () => {
    const range = (n: number): object => ({
      subnet: `10.1.${n}.0/24`,
      rangeStart: `10.1.${n}.10`,
      rangeEnd: `10.1.${n}.10`,
    });
    const ipam = { ranges: [[range(1), range(2)]] };
    expect(add({ id: 'a', ipam })).toEqual(['10.1.1.10/24']);
    expect(add({ id: 'b', ipam })).toEqual(['10.1.2.10/24']);
    del({ id: 'a', ipam });
    expect(add({ id: 'c', ipam })).toEqual(['10.1.1.10/24']);
  });

  it('finds the one free address of a large range', () => {
    const ipam = { ranges: [[{ subnet: '10.1.0.0/23' }]] };
    for (let i = 0; i < 509; i++) add({ id: `id${i}`, ipam });
    del({ id: 'id277', ipam });
    expect(add({ id: 'last', ipam })).toHaveLength(1);
    expect(() => add({ id: 'more', ipam })).toThrow('no IP addresses available');
  });

  it('gives nothing when a later set has nothing left', () => {
    const ipam = {
      ranges: [
        [{ subnet: '10.1.2.0/24' }],
        [{ subnet: '10.3.0.0/24', rangeStart: '10.3.0.5', rangeEnd: '10.3.0.5' }],
      ],
    };
    add({ id: 'a', ipam });
    expect(() => add({ id: 'b', ipam })).toThrow('10.3.0.5-10.3.0.5');
    expect(leases()).toEqual(['10.1.2.2', '10.3.0.5']);
    expect(indexEntries()).toEqual(['a:eth0']);
  });

  it('83. takes name servers from a resolv.conf, and no address when it is missing', () => {
    const resolvConf = join(dataDir, 'resolv.conf');
    const text = '# c\n; d\nnameserver 10.0.0.10\nsearch a.b c.d\noptions ndots:5\nsortlist x\n';
    writeFileSync(resolvConf, `${text}domain here\n`);
    expect(plugin.add(request({ ipam: { ...v4, resolvConf } })).dns).toEqual({
      nameservers: ['10.0.0.10'],
      search: ['a.b', 'c.d'],
      options: ['ndots:5'],
      domain: 'here',
    });
    del();
    expect(() => add({ ipam: { ...v4, resolvConf: '/nowhere' } })).toThrow('/nowhere');
    expect(leases()).toEqual([]);
  });

  it('keeps container IDs longer than a file name may be', () => {
    const id = 'x'.repeat(300);
    add({ id });
    expect(() => add({ id })).toThrow('duplicate');
    del({ id });
    expect(leases()).toEqual([]);
  });
});

describe('requested addresses', () => {
  const three = { ranges: [[{ subnet: '10.1.2.0/24' }], [{ subnet: 'fd00::/64' }]] };

  it.each([
    ['CNI_ARGS', { args: 'IP=10.1.2.50;IgnoreUnknown=1;K8S_POD_NAME=x' }],
    ['args.cni.ips', { more: { args: { cni: { ips: ['10.1.2.50/24'] } } } }],
    ['runtimeConfig.ips', { more: { runtimeConfig: { ips: ['10.1.2.50'] } } }],
  ])('75. come from %s', (_, ask) => expect(add(ask)).toEqual(['10.1.2.50/24']));

  it('74. 75. come from all of them together', () => {
    const more = { runtimeConfig: { ips: ['fd00::99/64'] } };
    expect(add({ ipam: three, args: 'IP=10.1.2.50', more })).toEqual([
      '10.1.2.50/24',
      'fd00::99/64',
    ]);
  });

  it.each([
    ['the gateway', '10.1.2.1', "requested ip 10.1.2.1 is subnet's gateway"],
    ['outside of all ranges', '10.9.9.9', 'failed to allocate all requested IPs: 10.9.9.9'],
    ['taken', '10.1.2.7', 'requested IP address 10.1.2.7 is not available in range set 10.1.2.1'],
    ['no address', 'x', 'expected an IP address'],
  ])('79. that are %s leave nothing', (_, ip, message) => {
    add({ id: 'other', args: 'IP=10.1.2.7' });
    expect(() => add({ args: `IP=${ip}` })).toThrow(message);
    expect(leases()).toEqual(['10.1.2.7']);
  });
});

describe('ranges', () => {
  it.each([
    [{ ranges: [[{ subnet: '10.1.2.3/24' }]] }, 'Network has host bits set'],
    [{ ranges: [[{ subnet: '10.1.2.0/31' }]] }, 'too small to allocate from'],
    [{ ranges: [[{ subnet: 'fd00::/127' }]] }, 'too small to allocate from'],
    [
      { ranges: [[{ subnet: '10.1.2.0/24', gateway: 'fd00::1' }]] },
      'gateway fd00::1 is not of the family of 10.1.2.0/24',
    ],
    [{ ranges: [[{ subnet: '10.1.2.0/24', rangeStart: '10.1.3.1' }]] }, 'rangeStart 10.1.3.1 not'],
    [{ ranges: [[{ subnet: '10.1.2.0/24', rangeEnd: '10.1.3.1' }]] }, 'rangeEnd 10.1.3.1 not in'],
    [
      { ranges: [[{ subnet: '10.1.2.0/24', rangeStart: '10.1.2.9', rangeEnd: '10.1.2.8' }]] },
      'is after rangeEnd',
    ],
    [{ ranges: [[{ subnet: '10.1.2.0/24' }, { subnet: 'fd00::/64' }]] }, 'mixed address families'],
    [{ ranges: [[{ subnet: '10.1.2.0/24' }, { subnet: '10.1.0.0/16' }]] }, 'overlapping ranges'],
    [
      { ranges: [[{ subnet: '10.1.2.0/24' }], [{ subnet: '10.1.2.0/25' }]] },
      'range set 1 overlaps',
    ],
    [{ ranges: [] }, 'at least one range'],
    [{ ranges: [[]] }, 'range set 0 is empty'],
    [{ ranges: [{ subnet: '10.1.2.0/24' }] }, 'field "ipam.ranges[0]": expected an array'],
    [{ ranges: [[{ subnet: '10.1.2.0' }]] }, 'field "ipam.ranges[0][0].subnet"'],
  ])('80. 81. %j are refused', (ipam, message) => {
    expect(() => add({ ipam })).toThrow(message);
    expect(leases()).toEqual([]);
  });

  it('may be written the oldest way', () => {
    expect(add({ ipam: { subnet: '10.1.2.0/24', rangeStart: '10.1.2.20' } })).toEqual([
      '10.1.2.20/24',
    ]);
  });

  it('of runtimeConfig come first', () => {
    const more = { runtimeConfig: { ipRanges: [[{ subnet: '10.7.0.0/24' }]] } };
    expect(add({ more })).toEqual(['10.7.0.2/24', '10.1.2.2/24']);
  });

  it('82. of one family twice need a result that holds both', () => {
    const ipam = { ranges: [[{ subnet: '10.1.2.0/24' }], [{ subnet: '10.3.0.0/24' }]] };
    expect(() => add({ ipam, cniVersion: '0.2.0' })).toThrow('more than 1 address per family');
    const dual = { ranges: [[{ subnet: '10.1.2.0/24' }], [{ subnet: 'fd00::/64' }]] };
    expect(add({ ipam: dual, cniVersion: '0.2.0' })).toHaveLength(2);
  });
});

describe('DEL', () => {
  it('72. succeeds for what was never there, and makes no directory', () => {
    del();
    expect(readdirSync(dataDir)).toEqual([]);
    add();
    del({ id: 'unknown' });
    del();
    del();
    expect(leases()).toEqual([]);
    expect(indexEntries()).toEqual([]);
  });

  it('works when the ranges have become wrong', () => {
    add();
    del({ ipam: { ranges: 'nonsense' } });
    expect(leases()).toEqual([]);
  });

  it('71. frees a lease from before interface names were written', () => {
    mkdirSync(join(dataDir, 'net'));
    writeFileSync(join(dataDir, 'net/10.1.2.9'), ' a \n');
    expect(() => add()).toThrow('10.1.2.9 has been allocated to a');
    del();
    expect(leases()).toEqual([]);
  });
});

describe('CHECK', () => {
  it('84. fails before ADD and after DEL', () => {
    const check = (): void => plugin.check?.(request({}));
    // Code 3 would tell the runtime that there is nothing to DEL, whatever else the pod has.
    expect(check).toThrow(
      expect.objectContaining({
        cniCode: 999,
        message: expect.stringContaining('Failed to find address added by container'),
      }),
    );
    add();
    check();
    del();
    expect(check).toThrow('Failed to find address added by container');
  });
});

describe('GC', () => {
  const gc = (valid: object): void =>
    plugin.gc?.(request({ more: { 'cni.dev/valid-attachments': valid } }));

  it('145. frees all but the valid attachments, old leases by their container', () => {
    for (const id of ['a', 'b', 'c']) add({ id });
    writeFileSync(join(dataDir, 'net/10.1.2.9'), 'old');
    writeFileSync(join(dataDir, 'net/10.1.2.10'), 'older');
    gc([
      { containerID: 'b', ifname: 'eth0' },
      { containerID: 'c', ifname: 'eth9' },
      { containerID: 'old', ifname: 'eth0' },
    ]);
    expect(leases()).toEqual(['10.1.2.3', '10.1.2.9']);
    expect(indexEntries().toSorted()).toEqual(['b:eth0', 'old:']);
  });

  it('145. frees nothing without a list', () => {
    add();
    expect(() => plugin.gc?.(request({}))).toThrow('cni.dev/valid-attachments');
    expect(leases()).toEqual(['10.1.2.2']);
  });
});

describe('after a crash', () => {
  it('an empty lease, which power loss leaves, is given out again', () => {
    add({ ipam: v4Small, id: 'a' });
    writeFileSync(join(dataDir, 'net/10.1.2.3'), '');
    writeFileSync(join(dataDir, 'net/10.1.2.4'), '\0\0\0\0');
    for (const id of ['b', 'c', 'd', 'e']) add({ ipam: v4Small, id });
    expect(leases()).toHaveLength(5);
  });

  it('a lease that did not reach the index is found', () => {
    add({ id: 'other' });
    writeFileSync(join(dataDir, 'net/10.1.2.7'), 'a\r\neth0');
    expect(() => add()).toThrow('10.1.2.7 has been allocated to a');
    del();
    expect(leases()).toEqual(['10.1.2.2']);
  });

  it('a lost index is made anew', () => {
    add();
    rmSync(join(dataDir, '.podwire'), { recursive: true });
    expect(() => add()).toThrow('duplicate');
    expect(readlinkSync(join(dataDir, '.podwire/net/a:eth0'))).toBe('10.1.2.2');
  });
});

describe.skipIf(!hasGo)(`together with Go's host-local (needs ${goProgram})`, () => {
  it('each sees and frees what the other gave', () => {
    expect(add({ id: 'ours' })).toEqual(['10.1.2.2/24']);
    expect(goAdd({ id: 'go' })).toBe('10.1.2.3/24');
    expect(add({ id: 'ours2' })).toEqual(['10.1.2.4/24']);
    expect(() => add({ id: 'go' })).toThrow('10.1.2.3 has been allocated to go');
    expect(go('ADD', { id: 'ours' }).msg).toContain('duplicate allocation');
    expect(go('DEL', { id: 'ours' })).toEqual({});
    del({ id: 'go' });
    expect(leases()).toEqual(['10.1.2.4']);
  });

  it("an address Go's freed and gave to another is not freed by the first's DEL", () => {
    const ipam = {
      ranges: [[{ subnet: '10.1.2.0/24', rangeStart: '10.1.2.5', rangeEnd: '10.1.2.5' }]],
    };
    add({ id: 'ours', ipam });
    go('DEL', { id: 'ours', ipam });
    expect(goAdd({ id: 'go', ipam })).toBe('10.1.2.5/24');
    del({ id: 'ours', ipam });
    expect(leases()).toEqual(['10.1.2.5']);
  });

  it("a lease Go's adds is seen though the directory's time stands still", () => {
    add({ id: 'ours' });
    const { atime, mtime, mtimeNs } = statSync(join(dataDir, 'net'), { bigint: true });
    const before = readFileSync(join(dataDir, '.podwire/net/.stamp'), 'utf8');
    expect(before.startsWith(String(mtimeNs))).toBe(true);
    goAdd({ id: 'go' });
    // As if it had happened within the same clock tick, nanoseconds aside.
    utimesSync(join(dataDir, 'net'), atime, mtime);
    const now = String(statSync(join(dataDir, 'net'), { bigint: true }).mtimeNs);
    writeFileSync(join(dataDir, '.podwire/net/.stamp'), before.replace(String(mtimeNs), now));
    expect(() => add({ id: 'go' })).toThrow('10.1.2.3 has been allocated to go');
  });

  it('takes turns at random and never gives one address twice', () => {
    let seed = 7;
    const random = (n: number): number => (seed = (seed * 1103515245 + 12345) % 2 ** 31) % n;
    const held = new Map<string, string>();
    for (let step = 0; step < 120; step++) {
      const id = `c${random(20)}`;
      const ours = random(2) === 0;
      if (held.has(id)) {
        if (ours) del({ id });
        else go('DEL', { id });
        held.delete(id);
      } else {
        const address = ours ? add({ id })[0] : goAdd({ id });
        expect([...held.values()]).not.toContain(address);
        held.set(id, address ?? '');
      }
      expect(leases()).toHaveLength(held.size);
    }
  });
});

/** The VM itself: that it is one, what its kernel has, and that nothing leads out of it. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runCommand } from '#pkg/exec/run.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { SOCK_CLOEXEC, SOCK_STREAM } from '#pkg/sys/constants.ts';
import { openSys } from '#pkg/sys/open-sys.ts';

/** "emulated" or "user-mode". */
const isEmulated = process.env['PODWIRE_VM'] === 'emulated';

it('runs under the kernel whose modules it was given', () => {
  const version = readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim();
  expect(existsSync(`/lib/modules/${version}/modules.dep`)).toBe(true);
});

it('has no network device but loopback', () => {
  expect(Object.keys(networkInterfaces())).toEqual(['lo']);
});

it('keeps what is written below the root to itself', () => {
  writeFileSync('/etc/podwire-vm-self-test', 'written');
  expect(readFileSync('/etc/podwire-vm-self-test', 'utf8')).toBe('written');
  const root = /^overlay \/ overlay rw,\S*lowerdir=\/system:\/machine,upperdir=\/memory\//m;
  expect(readFileSync('/proc/self/mounts', 'utf8')).toMatch(root);
  const shared = isEmulated ? '9p' : 'hostfs';
  expect(readFileSync('/proc/1/mounts', 'utf8')).toMatch(
    new RegExp(`^\\S+ /machine ${shared} ro,`, 'm'),
  );
});

describe('makes a device of type', () => {
  let netns: ScratchNetns;
  beforeAll(async () => {
    netns = await createScratchNetns('podwire-vm');
    await netns.ip('link add v0 type veth peer name v1');
  });
  afterAll(() => netns[Symbol.asyncDispose]());

  it.each([
    'dummy',
    'ipvlan link v0 mode l2',
    'vlan link v0 id 7',
    ...(isEmulated ? ['wireguard'] : []),
    'ipip local 192.0.2.1',
    'ip6tnl local 2001:db8::1',
    'sit local 192.0.2.1',
    'gre local 192.0.2.1',
    'vxlan id 7 local 192.0.2.1 dstport 4789',
    'bridge',
    'macvlan link v0 mode bridge',
  ])('%s', async (words) => {
    const [kind = '', ...rest] = words.split(' ');
    const below = rest[0] === 'link' ? rest.splice(0, 2).join(' ') : '';
    const options = [kind, ...rest].join(' ');
    // The second line fails unless the first has made it.
    await netns.batch([
      `link add ${below} name t0 type ${options}`.replaceAll(/ +/g, ' '),
      'link show t0',
      'link del t0',
    ]);
  });
});

// The other one has none.
if (isEmulated) {
  it('has flowtables', async () => {
    await using netns = await createScratchNetns('podwire-vm');
    await netns.ip('link add v0 type dummy');
    const flowtable =
      'table inet t { flowtable f { hook ingress priority 0; devices = { v0 }; }; }';
    await netns.exec('nft', ['-f', '-'], { input: flowtable });
    expect((await netns.exec('nft', ['list', 'flowtables'])).stdout).toContain('flowtable f {');
  });
}

it('has sockets of SCTP', async () => {
  const sys = await openSys();
  const [AF_INET, IPPROTO_SCTP] = [2, 132];
  sys.close(sys.socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_SCTP));
});

it('has IPVS in a namespace of its own', async () => {
  await using netns = await createScratchNetns('podwire-vm');
  await netns.exec('ipvsadm', ['-A', '-t', '10.96.0.1:80', '-s', 'mh', '-b', 'mh-port']);
  const { stdout } = await netns.exec('ipvsadm', ['-S', '-n']);
  expect(stdout.trim()).toBe('-A -t 10.96.0.1:80 -s mh -b mh-port');
  expect((await runCommand('ipvsadm', ['-S', '-n'], { timeoutMs: 20_000 })).stdout.trim()).toBe('');
});

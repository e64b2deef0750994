import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseVmArguments } from './arguments.ts';
import { cpioArchive, directoryEntry, fileEntry, linkEntry } from './cpio.ts';
import { UnnamedFile } from '#hack/unnamed-file.ts';
import { guestInit } from './guest-init.ts';
import { writeImage } from './image.ts';
import { qemuArguments, type QemuMachine } from './qemu.ts';
import { requireUserMode, suitesByMachine, suitesOf } from './suites.ts';
import { userModeCommand } from './user-mode.ts';

describe('parseVmArguments()', () => {
  it('takes files, a kernel and a time', () => {
    const argv = [
      '--kernel',
      '6.12',
      '--timeout',
      '90',
      '--quick',
      '--count-instructions',
      'pkg/ipvs',
    ];
    expect(parseVmArguments(argv)).toEqual({
      kernel: '6.12',
      timeoutSeconds: 90,
      quick: true,
      userMode: false,
      countInstructions: true,
      tests: ['pkg/ipvs'],
      command: [],
    });
  });

  it('takes a command behind --', () => {
    const { command, tests } = parseVmArguments(['--', 'ip', '--', 'link']);
    expect({ command, tests }).toEqual({ command: ['ip', '--', 'link'], tests: [] });
  });

  it.each([
    [['--timeout', '0']],
    [['--timeout', 'soon']],
    [['--timeout', '2147484']],
    [['--kernel', '']],
    [['--cpus', '4']],
    [['--user-mode', '--kernel', '6.12']],
    [['--user-mode', '--count-instructions']],
  ])('refuses %j', (argv) => expect(() => parseVmArguments(argv)).toThrow(TypeError));
});

describe('cpioArchive()', () => {
  it('is the newc format: header of 110 characters, everything padded to 4 bytes', () => {
    const content = new TextEncoder().encode('hello');
    const bytes = Buffer.concat([
      ...cpioArchive([
        directoryEntry('d'),
        fileEntry('d/f', content, 0o755),
        linkEntry('l', 'd/f'),
      ]),
    ]);
    expect(bytes.byteLength % 4).toBe(0);
    const text = bytes.toString('latin1');
    const headers = [...text.matchAll(/070701[0-9a-f]{104}/g)].map(([header]) => header);
    const field = (header: string, i: number): number =>
      Number.parseInt(header.slice(6 + 8 * i, 14 + 8 * i), 16);
    // mode, filesize, namesize
    expect(headers.map((h) => [field(h, 1), field(h, 6), field(h, 11)])).toEqual([
      [0o040755, 0, 2],
      [0o100755, 5, 4],
      [0o120777, 3, 2],
      [0, 0, 11],
    ]);
    expect(text).toContain(`d/f${'\0'.repeat(3)}hello${'\0'.repeat(3)}070701`);
  });
});

describe('writeImage()', () => {
  it('leaves out what is gone when it comes to read it', () => {
    using file = new UnnamedFile();
    // Whoever lists this folder finds the descriptor that lists it, and closes it then.
    const repository = '/proc/self/fd';
    writeImage(file.fd, { busybox: import.meta.filename, init: 'words', repository });
    const text = file.read().toString('latin1');
    expect(text).toContain('words');
    expect(text).toContain('repository/0');
  });
});

describe('qemuArguments()', () => {
  const machine: QemuMachine = { accelerator: 'tcg', kernelImage: '/k', shareRoot: true };

  it('gives the machine no network device, and this machine read-only', () => {
    const words = qemuArguments(machine).join(' ');
    expect(words).toContain('-nodefaults');
    expect(words).toContain('-nic none');
    expect(words).toMatch(/-virtfs local,path=\/,\S*readonly=on/);
    expect(words).not.toMatch(/netdev|-drive|-device (?!virtio-serial-pci|virtserialport)/);
  });

  it('uses the processor as it is, and more than one, under KVM only', () => {
    const underKvm = qemuArguments({ ...machine, accelerator: 'kvm' }).join(' ');
    expect(underKvm).toContain('-cpu host -smp 2');
    const emulated = qemuArguments(machine).join(' ');
    expect(emulated).toMatch(/-cpu qemu64\S* -smp 1 /);
  });

  it('counts instructions when asked to, in one thread', () => {
    expect(qemuArguments(machine).join(' ')).not.toContain('-icount');
    const counting = qemuArguments({ ...machine, countsInstructions: true }).join(' ');
    expect(counting).toMatch(/-accel tcg,thread=single,\S+ -icount shift=2,sleep=off /);
  });
});

describe('guestInit()', () => {
  it('quotes what a shell would take apart, twice for the command', () => {
    const init = guestInit({
      machine: { attach: ['output=/dev/null'], adapt: (folder) => [`rm ${folder}/x`] },
      root: '/srv/a b',
      argv: ['node', "it's"],
      env: { HOME: '/root' },
      timeoutSeconds: 9,
    });
    expect(init).toContain("mkdir -p '/newroot/srv/a b'");
    expect(init).toContain(
      `/bin/sh -c 'cd '\\''/srv/a b'\\'' && exec node '\\''it'\\''\\'\\'''\\''s'\\'''`,
    );
    expect(init).toContain('timeout -s KILL 9 ');
    expect(init).toMatch(/^output=\/dev\/null$[^]*^rm \/newroot\/x$[^]*chroot/m);
  });
});

describe('userModeCommand()', () => {
  const words = userModeCommand('/linux');

  it('gives the machine no network device and no disk', () => {
    expect(words.join(' ')).not.toMatch(/eth\d|vec\d|ubd/);
  });

  it('has it end with its helpers and its files', () => {
    expect(words.slice(0, 5)).toEqual([
      'unshare',
      '--mount',
      '--pid',
      '--fork',
      '--kill-child=KILL',
    ]);
    // It would begin anew.
    expect(words.join(' ')).not.toContain('panic=-1');
  });
});

describe('suitesByMachine()', () => {
  const root = join(import.meta.dirname, '../..');

  it('has each suite in one machine, and what is about machines in both', () => {
    const { emulated, userMode } = suitesByMachine(root);
    const twice = userMode.filter((file) => emulated.includes(file));
    expect(twice).toEqual(['hack/vm/self.vm.test.ts']);
    const all = suitesOf(root, []).map(({ file }) => file);
    expect([...new Set([...userMode, ...emulated])].toSorted()).toEqual(all);
  });

  it('keeps from user-mode Linux what it cannot run', () => {
    const { emulated, userMode } = suitesByMachine(root);
    expect(() => requireUserMode(suitesOf(root, userMode))).not.toThrow();
    expect(() => requireUserMode(suitesOf(root, emulated))).toThrow(
      /^Cannot run \S+\.vm\.test\.ts with --user-mode: its kernel has no WireGuard/,
    );
  });
});

describe('suitesOf()', () => {
  it('finds files by path and folder, and says which name finds none', () => {
    const root = mkdtempSync(join(tmpdir(), 'podwire-suites-'));
    try {
      mkdirSync(join(root, 'pkg/a'), { recursive: true });
      for (const name of ['x.vm.test.ts', 'y.kernel.test.ts', 'z.test.ts']) {
        writeFileSync(join(root, 'pkg/a', name), '');
      }
      const filesOf = (...names: string[]): string[] =>
        suitesOf(root, names).map(({ file }) => file);
      const both = ['pkg/a/x.vm.test.ts', 'pkg/a/y.kernel.test.ts'];
      expect(filesOf('pkg/a')).toEqual(both);
      expect(filesOf('pkg/a/z.test.ts')).toEqual(['pkg/a/z.test.ts']);
      expect(filesOf()).toEqual(['pkg/a/x.vm.test.ts']);
      mkdirSync(join(root, 'cmd/podwire-cni'), { recursive: true });
      const ipvlan = 'cmd/podwire-cni/over-master.kernel.test.ts';
      writeFileSync(join(root, ipvlan), '');
      const whole = { file: ipvlan, only: undefined };
      const part = { file: ipvlan, only: expect.any(RegExp) as RegExp };
      expect(suitesOf(root, [ipvlan])).toEqual([whole]);
      expect(suitesOf(root, [ipvlan], true)).toEqual([part]);
      expect(suitesOf(root, [])).toContainEqual(part);
      expect(() => filesOf('pkg/b')).toThrow('Cannot run pkg/b: no test file');
    } finally {
      rmSync(root, { recursive: true });
    }
  });
});

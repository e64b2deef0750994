import { spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { buildScript, fakeNpm } from './setup-fakes.ts';

const repository = join(import.meta.dirname, '..');
const isRoot = process.getuid?.() === 0;

let home: string;
let tree: string;
let bin: string;

beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'podwire-setup-'));
  tree = join(home, 'tree');
  bin = join(home, 'bin');
  // The unprivileged run must be able to read it.
  chmodSync(home, 0o755);
  cpSync(join(repository, 'hack/setup.mjs'), join(tree, 'hack/setup.mjs'), { recursive: true });
  cpSync(join(repository, 'hack/setup'), join(tree, 'hack/setup'), { recursive: true });
  file('tree/package.json', '{}');
  file('tree/tsconfig.json', '{}');
  lock('1.0.0');
  for (const folder of ['cmd', 'pkg', 'plugins']) file(`tree/${folder}/main.ts`, 'export {};');
  file('tree/hack/build.ts', buildScript());
  for (const tool of ['ip', 'nft', 'iptables', 'ip6tables', 'conntrack']) program(tool, '');
  program('nsenter', '');
  program('openssl', '');
  program('tcpdump', '');
  program('npm', fakeNpm(home));
});

afterEach(() => rmSync(home, { recursive: true }));

describe('setup refuses in one line and with exit code 2', () => {
  it('an unknown task', () => {
    const { status, stderr } = setup('destroy');
    expect({ status, stderr }).toEqual({
      status: 2,
      stderr: 'podwire setup: usage: node hack/setup.mjs <vm|demo|test> [arguments]\n',
    });
  });

  it('a user who is not root, and leaves nothing behind', () => {
    const before = readdirSync(tree, { recursive: true });
    const { status, stderr } = setupAsNobody('demo');
    expect(stderr).toMatch(/^podwire setup: cannot run demo as user \d+: needs root .*\n$/);
    expect(status).toBe(2);
    expect(readdirSync(tree, { recursive: true })).toEqual(before);
  });

  it.runIf(isRoot)('a missing tool where there is no apt-get, and leaves nothing behind', () => {
    rmSync(join(bin, 'tcpdump'));
    const before = readdirSync(tree, { recursive: true });
    const { status, stderr } = setup('demo');
    expect(stderr).toBe(
      'podwire setup: cannot run demo without tcpdump: this machine has no apt-get to install tcpdump\n',
    );
    expect(status).toBe(2);
    expect(readdirSync(tree, { recursive: true })).toEqual(before);
  });

  it.runIf(isRoot)('a package that apt-get cannot install', () => {
    rmSync(join(bin, 'tcpdump'));
    program('apt-get', 'echo Reading...; echo "E: Unable to locate package tcpdump" >&2; exit 100');
    const { status, stderr } = setup('demo');
    expect(stderr.split('\n').slice(1)).toEqual([
      'podwire setup: cannot install tcpdump: apt-get exited with 100: E: Unable to locate package tcpdump',
      '',
    ]);
    expect(status).toBe(2);
  });

  it.runIf(isRoot)('an apt-get that succeeds without bringing the tool', () => {
    rmSync(join(bin, 'tcpdump'));
    program('apt-get', '');
    const { status, stderr } = setup('demo');
    expect(stderr).toContain('cannot run demo without tcpdump: not there after installing tcpdump');
    expect(status).toBe(2);
  });

  it.runIf(isRoot)('an npm that fails', () => {
    program('npm', 'echo "npm error code E404" >&2; echo "npm error 404 no such" >&2; exit 1');
    const { status, stderr } = setup('demo');
    expect(stderr).toContain(
      'cannot install npm packages: npm exited with 1: npm error 404 no such\n',
    );
    expect(status).toBe(2);
  });
});

/** The path of packages' scripts. */
const servicesOff = (): string =>
  `${join(tree, 'hack/setup/no-services')}:/usr/sbin:/usr/bin:/sbin:/bin`;

describe.runIf(isRoot)('setup on a machine without anything', () => {
  it('installs what is missing, says so, builds, and runs the task', () => {
    rmSync(join(bin, 'tcpdump'));
    rmSync(join(bin, 'nsenter'));
    program(
      'apt-get',
      `echo "$DEBIAN_FRONTEND $*" >> ${home}/apt.log; ${fakeInstall('tcpdump')}; ${fakeInstall('nsenter')}`,
    );
    const { status, stdout, stderr } = setup('demo', '--keep');
    expect(stderr).toBe(
      [
        'podwire setup: installing Debian packages for nsenter, tcpdump: util-linux tcpdump',
        'podwire setup: installing npm packages (npm ci): node_modules is missing',
        'podwire setup: building dist/',
        '',
      ].join('\n'),
    );
    expect(stdout).toBe('podwire ran with demo --keep\n');
    expect(status).toBe(0);
    expect(readFileSync(join(home, 'apt.log'), 'utf8').split('\n')).toEqual([
      'noninteractive -o DPkg::Lock::Timeout=120 -q update',
      `noninteractive -o DPkg::Lock::Timeout=120 -q -y --no-install-recommends --no-remove -o DPkg::Path=${servicesOff()} install util-linux tcpdump`,
      '',
    ]);
  });

  it('waits for another apt-get that is at the package lists', () => {
    rmSync(join(bin, 'tcpdump'));
    const busy = 'E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)';
    program(
      'apt-get',
      `case "$*" in
        *update*) [ -e ${home}/tried ] || { echo > ${home}/tried; echo "${busy}" >&2; exit 100; };;
        *) ${fakeInstall('tcpdump')};;
      esac`,
    );
    expect(setup('demo').status).toBe(0);
  });

  it('starts no service that a package brings', () => {
    // As a package's script does when it has been installed.
    for (const program of ['invoke-rc.d', 'deb-systemd-invoke']) {
      const script = `command -v ${program} && ${program} frr start`;
      const env = { PATH: servicesOff() };
      const { status, stdout } = spawnSync('/bin/sh', ['-c', script], { encoding: 'utf8', env });
      expect({ status, stdout }).toEqual({
        status: 0,
        stdout: `${join(tree, 'hack/setup/no-services', program)}\n`,
      });
    }
  });

  it('tests without a virtual machine where it can have none, and says so', () => {
    // It brings whatever else the tests need.
    const others = readFileSync(join(tree, 'hack/setup/tools.mjs'), 'utf8').matchAll(
      /tool: '(?!qemu)([\w-]+)'/g,
    );
    const installs = [...others].map(([, tool = '']) => fakeInstall(tool)).join('; ');
    program(
      'apt-get',
      `case "$*" in *qemu*) echo "E: Unable to locate package qemu-system-x86" >&2; exit 100;; *install*) ${installs};; esac`,
    );
    file('tree/hack/verify.ts', `console.log('verified')`);
    file('tree/hack/kernel-suites.ts', `console.log('tested')`);
    const { status, stdout, stderr } = setup('test');
    expect(stderr).toMatch(
      /^podwire setup: tests in a virtual machine are skipped: cannot install .*qemu.*: apt-get exited with 100: E: Unable to locate package qemu-system-x86$/m,
    );
    expect({ status, stdout }).toEqual({ status: 0, stdout: 'verified\ntested\n' });
  });

  it('runs the install scripts that npm left out', () => {
    program('npm', fakeNpm(home, { scripts: false }));
    const { status, stderr } = setup('demo');
    expect(stderr).toContain('running the install script of npm package node, which npm left out');
    expect(stderr).toContain('running the install script of npm package bun, which npm left out');
    expect(status).toBe(0);
  });
});

describe.runIf(isRoot)('the second run', () => {
  beforeEach(() => expect(setup('demo').status).toBe(0));

  it('installs and builds nothing', () => {
    expect(setup('demo')).toMatchObject({ status: 0, stderr: '' });
  });

  it('builds again when a source changed, not when a test changed', () => {
    file('tree/pkg/some.test.ts', 'changed');
    expect(setup('demo').stderr).toBe('');
    file('tree/pkg/main.ts', 'changed');
    expect(setup('demo').stderr).toBe('podwire setup: building dist/\n');
    expect(setup('demo').stderr).toBe('');
  });

  it('builds again what a build that failed has left, though the sources are as before', () => {
    const good = buildScript();
    file('tree/hack/build.ts', `${good}; throw new Error('no space left')`);
    expect(setup('demo').stderr).toContain('Error: no space left');
    file('tree/hack/build.ts', good);
    expect(setup('demo').stderr).toBe('podwire setup: building dist/\n');
  });

  it('builds again when a product was deleted', () => {
    rmSync(join(tree, 'dist/podwire-cni'));
    expect(setup('demo').stderr).toBe('podwire setup: building dist/\n');
  });

  it('installs again when the lock file asks for another version', () => {
    lock('1.0.1');
    expect(setup('demo').stderr).toContain('(npm ci): node_modules/dependency is not 1.0.1\n');
  });

  it('installs again when a package was deleted by hand', () => {
    rmSync(join(tree, 'node_modules/dependency'), { recursive: true });
    expect(setup('demo').stderr).toContain('(npm ci): node_modules/dependency is missing\n');
  });

  it('ends with the exit code of the task', () => {
    file('tree/hack/build.ts', buildScript('process.exitCode = 7'));
    expect(setup('demo').status).toBe(7);
  });

  it('passes SIGTERM to the task and waits for it', async () => {
    const wait = `process.once('SIGTERM', () => { console.log('cleaned up'); process.exit(3); });
      setInterval(() => {}, 1000); console.log('waiting');`;
    file('tree/hack/build.ts', buildScript(wait));
    const child = spawn(process.execPath, [join(tree, 'hack/setup.mjs'), 'demo'], { env: env() });
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      if (text.includes('waiting')) child.kill('SIGTERM');
    });
    const code = await new Promise((resolve) => child.once('close', resolve));
    expect({ code, output }).toEqual({ code: 3, output: expect.stringContaining('cleaned up') });
  });
});

function setup(...args: string[]): ReturnType<typeof run> {
  return run(process.execPath, [join(tree, 'hack/setup.mjs'), ...args]);
}

function setupAsNobody(...args: string[]): ReturnType<typeof run> {
  if (!isRoot) return setup(...args);
  const become = ['--reuid=65534', '--regid=65534', '--clear-groups'];
  // The copy in /usr/bin: the pinned one may lie where nobody may not look.
  return run('/usr/bin/setpriv', [
    ...become,
    process.execPath,
    join(tree, 'hack/setup.mjs'),
    ...args,
  ]);
}

function run(
  command: string,
  args: string[],
): { status: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(command, args, { env: env(), encoding: 'utf8' });
  return { status, stdout, stderr };
}

function env(): NodeJS.ProcessEnv {
  return { PATH: bin, NODE_NO_WARNINGS: '1' };
}

function file(path: string, text: string): void {
  mkdirSync(dirname(join(home, path)), { recursive: true });
  writeFileSync(join(home, path), text);
}

function program(name: string, script: string): void {
  file(`bin/${name}`, `#!/bin/sh\n${script}\n`);
  chmodSync(join(bin, name), 0o755);
}

function fakeInstall(tool: string): string {
  return `echo > ${bin}/${tool}; /bin/chmod +x ${bin}/${tool}`;
}

/** The lock file, and beside the tree what npm will record of installing it on this machine. */
function lock(version: string): void {
  const pinned = { version: '26.0.0', integrity: 'sha512-x' };
  const packages = {
    'node_modules/node': pinned,
    'node_modules/bun': pinned,
    'node_modules/dependency': { version, integrity: `sha512-${version}` },
  };
  const other = { 'node_modules/for-another-machine': { version: '1.0.0', optional: true } };
  file('tree/package-lock.json', JSON.stringify({ packages: { '': {}, ...packages, ...other } }));
  file('record.json', JSON.stringify({ packages }));
}

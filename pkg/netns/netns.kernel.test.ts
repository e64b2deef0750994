import { closeSync, openSync, readdirSync, readlinkSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { runCommand } from '#pkg/exec/run.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { getLink } from '#pkg/netlink/link.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { readSysctl, writeSysctl } from '#pkg/sysctl/sysctl.ts';
import { netnsIdentity, openNetns, openOwnNetns, warmUpThreadPool, withNetns } from './netns.ts';
import { createScratchNetns, type ScratchNetns } from './scratch.ts';

const sys = await openSys();
const die = (error: Error): never => {
  throw error;
};
const own = (): string => readlinkSync('/proc/thread-self/ns/net');
const home = own();

let scratch: ScratchNetns;

beforeEach(async () => {
  scratch = await createScratchNetns('pw-ns');
  await scratch.ip('link add mark0 type bridge');
});

afterEach(async () => {
  expect(own()).toBe(home);
  await scratch[Symbol.asyncDispose]();
});

describe('withNetns()', () => {
  it('runs inside and returns home, by path and by descriptor', () => {
    const inside = withNetns(sys, scratch.path, own, die);
    expect(inside).not.toBe(home);
    using netns = openNetns(scratch.path);
    expect(withNetns(sys, netns.fd, own, die)).toBe(inside);
    expect(own()).toBe(home);
  });

  it('returns home when what it runs throws', () => {
    const run = (): never => {
      throw new Error('inside');
    };
    expect(() => withNetns(sys, scratch.path, run, die)).toThrow('inside');
    expect(own()).toBe(home);
  });

  it('leaves sockets where they were opened', () => {
    using socket = withNetns(sys, scratch.path, () => new NetlinkSocket(sys), die);
    expect(getLink(socket, 'mark0')).toBeDefined();
    using other = new NetlinkSocket(sys);
    expect(getLink(other, 'mark0')).toBeUndefined();
  });

  it('leaves the threads of asynchronous file access at home', async () => {
    await warmUpThreadPool();
    const pending = withNetns(
      sys,
      scratch.path,
      () => ({
        reads: Array.from({ length: 16 }, () => readFile('/proc/thread-self/net/dev', 'utf8')),
      }),
      die,
    );
    for (const text of await Promise.all(pending.reads)) expect(text).not.toContain('mark0');
  });

  it('reads and writes the sysctls inside', () => {
    const path = 'net/ipv4/conf/mark0/rp_filter';
    expect(readSysctl(path)).toBeUndefined();
    const value = withNetns(
      sys,
      scratch.path,
      () => {
        writeSysctl(path, '2');
        return readSysctl(path);
      },
      die,
    );
    expect(value).toBe('2');
  });

  it('dies when it cannot return', () => {
    let calls = 0;
    const broken: Sys = {
      ...sys,
      setns(fd, type) {
        calls += 1;
        if (calls === 2) throw new AgentError('EPERM', 'Cannot enter a namespace');
        sys.setns(fd, type);
      },
    };
    const deaths: AgentError[] = [];
    const homeFd = openSync('/proc/thread-self/ns/net', 'r');
    try {
      const dying = (error: AgentError): never => {
        deaths.push(error);
        throw error;
      };
      expect(() => withNetns(broken, scratch.path, () => 1, dying)).toThrow(/must end here/);
      expect(deaths).toMatchObject([{ code: 'NetnsLost', cause: { code: 'EPERM' } }]);
    } finally {
      sys.setns(homeFd, 0);
      closeSync(homeFd);
    }
  });

  it('leaks no descriptors', () => {
    const count = (): number => readdirSync('/proc/self/fd').length;
    const before = count();
    for (let i = 0; i < 50; i++) withNetns(sys, scratch.path, () => i, die);
    expect(count()).toBe(before);
  });
});

describe('openNetns()', () => {
  it('tells what is not there from what is no namespace', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'podwire-ns-'));
    const file = join(folder, 'left-behind');
    await writeFile(file, '');
    const failing = (code: string): unknown => expect.objectContaining({ code });
    expect(() => openNetns(join(folder, 'none'))).toThrow(failing('NetnsMissing'));
    expect(() => openNetns(join(file, 'below'))).toThrow(failing('NetnsMissing'));
    expect(() => openNetns(file)).toThrow(failing('NetnsInvalid'));
    expect(() => openNetns(folder)).toThrow(failing('NetnsInvalid'));
    expect(() => withNetns(sys, file, () => 1, die)).toThrow(/the file is not a network namespace/);
    await rm(folder, { recursive: true });
  });

  it('refuses other kinds of namespace', () => {
    expect(() => withNetns(sys, '/proc/self/ns/mnt', () => 1, die)).toThrow(
      expect.objectContaining({ code: 'NetnsInvalid', cause: expect.anything() }),
    );
  });

  it('knows a namespace again', () => {
    using one = openNetns(scratch.path);
    using two = openNetns(scratch.path);
    using mine = openOwnNetns();
    expect(one.identity).toBe(two.identity);
    expect(one.identity).toBe(netnsIdentity(scratch.path));
    expect(mine.identity).not.toBe(one.identity);
  });
});

it('a scratch namespace goes with everything that runs in it', async () => {
  const other = await createScratchNetns('pw-ns');
  const sleeping = other.exec('sleep', ['1000'], { timeoutMs: 60_000 });
  const ended = expect(sleeping).rejects.toMatchObject({ code: 'CommandFailed' });
  await expect
    .poll(
      async () =>
        (await runCommand('ip', ['netns', 'pids', other.name], { timeoutMs: 60_000 })).stdout,
    )
    .not.toBe('');
  await other[Symbol.asyncDispose]();
  await ended;
  expect(() => openNetns(other.path)).toThrow('no such file');
});

import { expect, it } from 'vitest';
import { readSysctl, writeSysctl } from './sysctl.ts';

it('reads values with runs of blanks as one', () => {
  expect(readSysctl('kernel/ostype')).toBe('Linux');
  expect(readSysctl('net/ipv4/ip_local_port_range')).toMatch(/^\d+ \d+$/);
});

it('has nothing to read where the kernel has no setting', () => {
  expect(readSysctl('net/ipv4/conf/no.such.link/forwarding')).toBeUndefined();
});

it('says that the kernel has no such setting to write', () => {
  expect(() => writeSysctl('net/ipv4/no_such_setting', '1')).toThrow(
    expect.objectContaining({
      code: 'ENOENT',
      message:
        'Cannot write sysctl net/ipv4/no_such_setting = "1": this kernel, or this network namespace, does not have it (ENOENT)',
    }),
  );
});

it.each([
  '',
  '/etc/passwd',
  '../../etc/passwd',
  'net/../../../etc',
  'net/./ipv4',
  'net//ipv4',
  'a\0b',
])('refuses to leave /proc/sys for %j', (path) => {
  const refusal = expect.objectContaining({ code: 'SysctlInvalid' });
  expect(() => readSysctl(path)).toThrow(refusal);
  expect(() => writeSysctl(path, '1')).toThrow(refusal);
});

/** Programs of the machine that tests start all the time: the VM has them in memory. */
import { spawnSync } from 'node:child_process';
import { existsSync, globSync, realpathSync, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';

const programs = [
  'bash',
  'bridge',
  'env',
  'conntrack',
  'ip',
  'ip6tables-restore',
  'ipset',
  'iptables',
  'ipvsadm',
  'kill',
  'nft',
  'nsenter',
  'ping',
  'sh',
  'sysctl',
  'wg',
];

/** What they open besides their libraries. */
const data = [
  '/etc/ld.so.cache',
  '/etc/host.conf',
  '/etc/hosts',
  '/etc/nsswitch.conf',
  '/etc/protocols',
  '/etc/services',
  '/etc/iproute2/*',
  '/usr/lib/*/xtables/*.so',
];

/**
 * Their files and those of their libraries, without symbolic links on the way. Each start of a
 * program looks at a dozen files; through 9p each look waits for the machine.
 */
export function systemFiles(searchPath: string): string[] {
  const found = programs.flatMap((name) => {
    const path = searchPath
      .split(delimiter)
      .map((folder) => join(folder, name))
      .find((candidate) => existsSync(candidate));
    return path === undefined ? [] : [path];
  });
  const all = [...found, ...found.flatMap(libraries), ...data.flatMap((path) => globSync(path))];
  const files = all.map((path) => realpathSync(path)).filter((path) => statSync(path).isFile());
  return [...new Set(files)].toSorted();
}

/**
 * "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)", "/lib64/ld-linux-x86-64.so.2 (0x…)"; none for
 * scripts and for programs without libraries, which ldd calls an error.
 */
function libraries(program: string): string[] {
  const { stdout } = spawnSync('ldd', [program], { encoding: 'utf8' });
  return [...stdout.matchAll(/(\/\S+) \(0x/g)].map((match) => match[1] ?? '');
}

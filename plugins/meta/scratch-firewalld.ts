/** A firewalld of a test's own: in the test's namespace, on a D-Bus of its own. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from '#cmd/podwire-cni/scratch-node.ts';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';

/** Whether this machine has what it takes (Debian's packages firewalld, dbus and systemd). */
export const hasFirewalld =
  existsSync('/usr/sbin/firewalld') &&
  existsSync('/usr/bin/dbus-daemon') &&
  existsSync('/usr/bin/busctl');

export interface ScratchFirewalld extends AsyncDisposable {
  /** What a program needs to find it. */
  readonly env: Readonly<Record<string, string>>;
  /** The sources of a zone, sorted. */
  sources(zone: string): Promise<readonly string[]>;
}

/** Resolves when it answers. */
export async function startFirewalld(netns: ScratchNetns): Promise<ScratchFirewalld> {
  const directory = mkdtempSync(join(tmpdir(), 'podwire-firewalld-'));
  const address = `unix:path=${join(directory, 'bus')}`;
  const env = { DBUS_SYSTEM_BUS_ADDRESS: address };
  const children: ChildProcess[] = [];
  const start = (file: string, args: readonly string[]): void => {
    const words = ['env', `DBUS_SYSTEM_BUS_ADDRESS=${address}`, file, ...args];
    const child = spawn('nsenter', [`--net=${netns.path}`, ...words], { stdio: 'ignore' });
    children.push(child);
  };
  const dispose = async (): Promise<void> => {
    for (const child of children.toReversed()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
    }
    rmSync(directory, { recursive: true });
  };
  const busctl = async (...args: readonly string[]): Promise<string> => {
    const words = ['busctl', '--system', 'call', ...args];
    const { stdout } = await netns.exec('env', [`DBUS_SYSTEM_BUS_ADDRESS=${address}`, ...words]);
    return stdout.trim();
  };
  const firewalld = 'org.fedoraproject.FirewallD1';
  try {
    const config = join(directory, 'bus.conf');
    writeFileSync(config, busConfig(address));
    start('dbus-daemon', ['--nofork', `--config-file=${config}`]);
    await eventually(async () => Promise.resolve(existsSync(join(directory, 'bus'))));
    const own = join(directory, 'firewalld');
    for (const kind of ['zones', 'services', 'policies', 'icmptypes', 'helpers', 'ipsets']) {
      mkdirSync(join(own, kind), { recursive: true });
    }
    const log = join(directory, 'log');
    start('firewalld', ['--nofork', '--nopid', '--system-config', own, '--log-file', log]);
    const bus = 'org.freedesktop.DBus';
    const owned = [bus, '/org/freedesktop/DBus', bus, 'NameHasOwner', 's', firewalld];
    await eventually(async () => (await busctl(...owned)) === 'b true');
  } catch (error) {
    await dispose();
    throw error;
  }
  return {
    env,
    async sources(zone) {
      const path = '/org/fedoraproject/FirewallD1';
      const said = await busctl(firewalld, path, `${firewalld}.zone`, 'getSources', 's', zone);
      return [...said.matchAll(/"([^"]*)"/g)].map(([, source = '']) => source).toSorted();
    },
    [Symbol.asyncDispose]: dispose,
  };
}

function busConfig(address: string): string {
  return `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>${address}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
`;
}

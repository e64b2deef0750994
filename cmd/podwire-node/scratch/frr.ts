/** FRR's zebra and bgpd for tests: in a namespace, with sockets of their own. */
import { chmodSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import { systemClock } from '#pkg/clock/clock.ts';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import type { RoutingProgram } from './routing-program.ts';

export interface FrrProgram extends RoutingProgram {
  /** bgpd's. */
  readonly vtySocket: string;
  /** What bgpd answers to people, or does as they say. */
  ask(...commands: string[]): Promise<string>;
}

const programs = '/usr/lib/frr';
/** Next hops, and neighbours, may be behind the default router. */
export const viaDefault = 'ip nht resolve-via-default\nipv6 nht resolve-via-default\n';
export const hasFrr = existsSync(join(programs, 'bgpd'));

/** @param config bgpd's own, as somebody else wrote it: what it reads each time it starts */
export function frrIn(
  netns: ScratchNetns,
  {
    dir,
    name,
    config = '',
    zebraConfig = '',
  }: {
    readonly dir: string;
    readonly name: string;
    readonly config?: string;
    readonly zebraConfig?: string;
  },
): FrrProgram {
  const home = join(dir, `frr-${name}`);
  mkdirSync(home);
  // They change to a user of their own.
  for (const path of [dir, home]) chmodSync(path, 0o777);
  const configFile = join(home, 'bgpd.conf');
  writeFileSync(configFile, config);
  const zebraFile = join(home, 'zebra.conf');
  writeFileSync(zebraFile, zebraConfig);
  const vtySocket = join(home, 'bgpd.vty');
  let [zebra, bgpd]: (Awaited<ReturnType<typeof running>> | undefined)[] = [];

  function spawn(daemon: string, flags: readonly string[]) {
    const own = ['-i', join(home, `${daemon}.pid`), '-z', join(home, 'zserv'), '-P', '0'];
    const sockets = ['--vty_socket', home, '--log', 'stdout'];
    const command = [join(programs, daemon), ...own, ...sockets, ...flags];
    return execa('ip', ['netns', 'exec', netns.name, ...command], { reject: false, all: true });
  }

  async function ask(daemon: string, commands: readonly string[]): Promise<string> {
    const words = commands.flatMap((command) => ['-c', command]);
    return (await netns.exec('vtysh', ['--vty_socket', home, '-d', daemon, ...words])).stdout;
  }

  async function running(
    daemon: string,
    flags: readonly string[],
  ): Promise<{ readonly child: ReturnType<typeof spawn> }> {
    rmSync(join(home, `${daemon}.vty`), { force: true });
    const child = spawn(daemon, flags);
    while (!existsSync(join(home, `${daemon}.vty`))) {
      const isRunning = systemClock.sleep(20).then(() => undefined);
      const ended = await Promise.race([child, isRunning]);
      if (ended !== undefined) throw new Error(`${daemon} ended: ${ended.all}`);
    }
    return { child };
  }

  const end = async (program: typeof bgpd): Promise<void> => {
    program?.child.kill('SIGKILL');
    await program?.child;
  };
  return {
    vtySocket,
    settings: ['daemon: frr', `vtySocket: ${vtySocket}`],
    routeProtocol: 'bgp',
    start: async () => {
      zebra ??= await running('zebra', ['-f', zebraFile]);
      bgpd = await running('bgpd', ['-f', configFile]);
    },
    kill: () => end(bgpd),
    end: async () => {
      await end(bgpd);
      await end(zebra);
      zebra = undefined;
    },
    established: async () =>
      (await ask('bgpd', ['show bgp summary json'])).split('"state":"Established"').length - 1,
    isRecovering: async () =>
      (await ask('zebra', ['show zebra client'])).includes('Stale delete timer'),
    ask: (...commands) => ask('bgpd', commands),
  };
}

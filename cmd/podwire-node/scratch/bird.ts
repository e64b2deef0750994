/** BIRD 2 for tests: as Debian starts it, in a namespace, with files of its own. */
import { existsSync, writeFileSync } from 'node:fs';
import { execa } from 'execa';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import type { RoutingProgram } from './routing-program.ts';

export interface BirdProgram extends RoutingProgram {
  readonly configFile: string;
  /** The file of ours that the other includes. */
  readonly included: string;
  readonly controlSocket: string;
  /** What it answers to people. */
  ask(...words: string[]): Promise<string>;
}

const program = '/usr/sbin/bird';
export const hasBird = existsSync(program);

/** Debian's own configuration, with what a restart without a gap takes. */
const common = (id: string): string => `log stderr all;
router id ${id};
protocol device { }
protocol direct { ipv4; ipv6; }
protocol kernel { ipv4 { export where source = RTS_BGP; }; graceful restart; persist; }
protocol kernel { ipv6 { export where source = RTS_BGP; }; graceful restart; persist; }
`;

/** @param id its BGP Identifier */
export function birdIn(
  netns: ScratchNetns,
  { dir, name, id }: { readonly dir: string; readonly name: string; readonly id: string },
): BirdProgram {
  const [configFile, controlSocket] = [`${dir}/${name}.conf`, `${dir}/${name}.ctl`];
  const included = `${dir}/podwire-${name}.conf`;
  let child: ReturnType<typeof spawn> | undefined;
  writeFileSync(included, '');
  writeFileSync(configFile, `${common(id)}include "${included}";\n`);

  function spawn(flags: readonly string[]) {
    // In the foreground (-f), so that it is ours to end.
    const own = ['-f', '-c', configFile, '-s', controlSocket, ...flags];
    return execa('ip', ['netns', 'exec', netns.name, program, ...own], {
      reject: false,
      all: true,
    });
  }

  const end = async (): Promise<void> => {
    child?.kill('SIGKILL');
    await child;
  };
  const ask = async (...words: string[]): Promise<string> =>
    (await netns.exec('birdc', ['-s', controlSocket, ...words])).stdout;
  return {
    configFile,
    included,
    controlSocket,
    settings: [`configFile: ${included}`, `controlSocket: ${controlSocket}`],
    routeProtocol: 'bird',
    start: async (recovering = false) => {
      // With -R it leaves the kernel's routes alone until it knows better.
      child = spawn(recovering ? ['-R'] : []);
      const ended = child.then(({ all }) => Promise.reject(new Error(`BIRD ended: ${all}`)));
      const answers = async (): Promise<void> => {
        for (;;) {
          if (existsSync(controlSocket)) {
            try {
              await ask('show', 'status');
              return;
            } catch {
              // A socket left behind by a BIRD that was killed.
            }
          }
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
      };
      ended.catch(() => undefined);
      await Promise.race([answers(), ended]);
    },
    kill: end,
    end,
    established: async () => (await ask('show', 'protocols')).split('Established').length - 1,
    isRecovering: async () =>
      (await ask('show', 'status')).includes('Graceful restart recovery in progress'),
    ask,
  };
}

/** A route reflector for these clients, in AS 64512. */
export function birdReflectorIn(
  netns: ScratchNetns,
  { dir, clients }: { readonly dir: string; readonly clients: readonly string[] },
): RoutingProgram {
  const bird = birdIn(netns, { dir, name: 'reflector', id: '203.0.113.1' });
  const sessions = clients.map(
    (address) => `protocol bgp {
  local as 64512;
  neighbor ${address} as 64512;
  direct;
  rr client;
  graceful restart on;
  connect delay time 1;
  error wait time 1, 5;
  ipv${address.includes(':') ? 6 : 4} { import all; export where source = RTS_BGP; };
}
`,
  );
  writeFileSync(bird.included, sessions.join(''));
  return bird;
}

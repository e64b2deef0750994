/** BIRD 2 for tests: as Debian starts it, in a namespace, with files of its own. */
import { existsSync } from 'node:fs';
import { execa } from 'execa';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';

export interface BirdProgram {
  readonly configFile: string;
  readonly controlSocket: string;
  /** Starts it; with `recovering` it leaves the kernel's routes alone until it knows better (-R). */
  start(recovering?: boolean): Promise<void>;
  /** As the kernel ends it when memory runs out. */
  kill(): Promise<void>;
  /** What it answers to people. */
  ask(...words: string[]): Promise<string>;
}

const program = '/usr/sbin/bird';
export const hasBird = existsSync(program);

export function birdIn(netns: ScratchNetns, dir: string, name: string): BirdProgram {
  const [configFile, controlSocket] = [`${dir}/${name}.conf`, `${dir}/${name}.ctl`];
  let child: ReturnType<typeof spawn> | undefined;

  function spawn(flags: readonly string[]) {
    // In the foreground (-f), so that it is ours to end.
    const own = ['-f', '-c', configFile, '-s', controlSocket, ...flags];
    return execa('ip', ['netns', 'exec', netns.name, program, ...own], {
      reject: false,
      all: true,
    });
  }

  const ask = async (...words: string[]): Promise<string> =>
    (await netns.exec('birdc', ['-s', controlSocket, ...words])).stdout;
  return {
    configFile,
    controlSocket,
    start: async (recovering = false) => {
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
    kill: async () => {
      child?.kill('SIGKILL');
      await child;
    },
    ask,
  };
}

/**
 * Our part of BIRD's configuration: a file that bird.conf includes, and the word to read it again.
 * BIRD itself is somebody else's to start and to stop.
 */
import { readFile } from 'node:fs/promises';
import { birdCommand } from '#pkg/bird/control.ts';
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import { birdConfigTitle } from '#pkg/overlay/bird-config.ts';
import type { WrittenFiles } from './written-files.ts';

export interface BirdOptions {
  /** Our file. */
  readonly configFile: string;
  readonly controlSocket: string;
}

export interface BirdContext {
  /** Monotonic, in milliseconds. */
  readonly now: () => number;
  /** By which somebody notices that our file is gone. */
  readonly written: Pick<WrittenFiles, 'write' | 'forget'>;
}

export interface BirdDriver {
  /** @param config all that is ours; undefined = BIRD has nothing to do with us */
  apply(config: string | undefined, signal: AbortSignal): Promise<void>;
  /** What BIRD said lately of its sessions that are not up. */
  problems(): readonly string[];
}

/** BIRD is asked whether it is there, and has our part, this often when nothing changes. */
const verifyIntervalMs = 30_000;

export function createBirdDriver(
  { configFile, controlSocket }: BirdOptions,
  { now, written }: BirdContext,
): BirdDriver {
  let verifiedAtMs = Number.NEGATIVE_INFINITY;
  /** What BIRD has read; undefined = not known to this process. */
  let loaded: string | undefined;
  let problems: readonly string[] = [];
  /** Nothing of ours is announced, and this process need not look again. */
  let isCleared = false;

  /** @param before what the file held when BIRD took it last */
  async function reload(before: string | undefined, signal: AbortSignal): Promise<void> {
    const { code, lines } = await birdCommand(controlSocket, 'configure', signal);
    if (code < 1000) return;
    // As it was: with a file that it refuses BIRD could not even start again.
    if (before !== undefined) await written.write(configFile, before);
    throw new AgentError(
      'BirdRefused',
      `Cannot announce pods: BIRD refuses its configuration: ${lines.at(-1) ?? ''}`,
    );
  }

  /** @param isFresh sessions have had no time to come up */
  async function verify(config: string, isFresh: boolean, signal: AbortSignal): Promise<void> {
    const { lines } = await birdCommand(controlSocket, 'show protocols "podwire_*"', signal);
    const states = lines.flatMap(parseProtocol);
    for (const [, name = ''] of config.matchAll(/^protocol \w+ (\w+)/gm)) {
      if (states.some((state) => state.name === name)) continue;
      throw new AgentError(
        'BirdIncludeMissing',
        `Cannot announce pods: BIRD has not read ${configFile}; its bird.conf must say include "${configFile}";`,
      );
    }
    verifiedAtMs = now();
    loaded = config;
    problems = isFresh ? [] : states.flatMap(({ problem }) => problem ?? []);
  }

  return {
    problems: () => problems,
    async apply(config, signal) {
      if (config === undefined && isCleared) return;
      const before = await readIfThere(configFile);
      if (config === undefined) {
        // Another backend now: what we announced must not stay.
        problems = [];
        loaded = undefined;
        if (before?.startsWith(birdConfigTitle) === true) {
          await written.write(configFile, emptyConfig);
          await reload(undefined, signal).catch((error: unknown) => {
            // One that does not run announces nothing, and reads the file when it starts.
            if (!isErrno(error, 'ENOENT') && !isErrno(error, 'ECONNREFUSED')) throw error;
          });
        }
        written.forget(configFile);
        isCleared = true;
        return;
      }
      isCleared = false;
      const changed = await written.write(configFile, config);
      const isRead = !changed && config === loaded;
      if (isRead && now() - verifiedAtMs < verifyIntervalMs) return;
      if (!isRead) await reload(loaded ?? before, signal);
      await verify(config, changed, signal);
    },
  };
}

interface ProtocolState {
  readonly name: string;
  /** Of a session that is not up. */
  readonly problem: string | undefined;
}

/** A line of `show protocols`: name, kind, table, state, since, and what a session is about. */
function parseProtocol(line: string): ProtocolState[] {
  const [name = '', kind, , , , ...info] = line.trim().split(/\s+/);
  if (!name.startsWith('podwire_')) return [];
  const isDown = kind === 'BGP' && info[0] !== 'Established';
  return [
    {
      name,
      problem: isDown
        ? `BGP session ${name} of BIRD is not up: ${info.join(' ') || 'no reason given'}`
        : undefined,
    },
  ];
}

const emptyConfig = `${birdConfigTitle}\n`;

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    if (isErrno(cause, 'ENOENT')) return undefined;
    throw new AgentError('ReadFailed', `Cannot read ${path}`, { cause });
  }
}

/**
 * One run of the demo as others find it: a folder that exists before the first namespace and goes
 * after the last, naming the process that owns the run. A run whose owner is gone, however it
 * ended, is a leftover that anyone may remove.
 */
import { randomBytes } from 'node:crypto';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { startTicks } from './processes.ts';

export const runsFolder = '/run/podwire-demo';

export interface RunState {
  readonly id: string;
  readonly owner: { readonly pid: number; readonly startTicks: string };
  /** The owner left it running on purpose. */
  readonly kept: boolean;
}

export interface RunFolder {
  readonly id: string;
  /** Holds everything the run writes: configuration, logs, sockets, state. */
  readonly path: string;
}

/** Claims a new run for the process `ownerPid`. */
export function createRunFolder(ownerPid: number): RunFolder {
  const id = randomBytes(3).toString('hex');
  mkdirSync(runsFolder, { recursive: true, mode: 0o700 });
  // Renamed into place with its state inside: nobody ever sees a run without an owner.
  const unnamed = mkdtempSync(join(runsFolder, '.new-'));
  writeState(unnamed, {
    id,
    owner: { pid: ownerPid, startTicks: startTicks(ownerPid) ?? '' },
    kept: false,
  });
  const path = join(runsFolder, id);
  renameSync(unnamed, path);
  for (const part of ['agents', 'logs']) mkdirSync(join(path, part));
  return { id, path };
}

/** From now on the run outlives its owner. */
export function keepRun({ id, path }: RunFolder): void {
  const state = readState(path);
  if (state !== undefined) writeState(path, { ...state, id, kept: true });
}

export interface FoundRun extends RunFolder {
  /** `running`: its owner lives. `abandoned`: its owner is gone without having removed it. */
  readonly status: 'running' | 'kept' | 'abandoned';
}

/** All runs of this machine. */
export function findRuns(): FoundRun[] {
  return listFolder(runsFolder).flatMap((name): FoundRun[] => {
    const path = join(runsFolder, name);
    const state = readState(path);
    if (state === undefined)
      return isBeingMade(path) ? [] : [{ id: name, path, status: 'abandoned' }];
    const { id, owner, kept } = state;
    if (kept) return [{ id, path, status: 'kept' }];
    const lives = startTicks(owner.pid) === owner.startTicks;
    return [{ id, path, status: lives ? 'running' : 'abandoned' }];
  });
}

/** Forgets the run: the last step of removing it. */
export function removeRunFolder({ path }: RunFolder): void {
  rmSync(path, { recursive: true, force: true });
  try {
    rmdirSync(runsFolder);
  } catch (error) {
    if (!isErrno(error, 'ENOTEMPTY') && !isErrno(error, 'ENOENT')) throw error;
  }
}

function writeState(folder: string, state: RunState): void {
  const path = join(folder, 'state.json');
  writeFileSync(`${path}.new`, `${JSON.stringify(state)}\n`, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

function readState(folder: string): RunState | undefined {
  try {
    return JSON.parse(readFileSync(join(folder, 'state.json'), 'utf8')) as RunState;
  } catch (error) {
    if (isErrno(error, 'ENOENT') || isErrno(error, 'ENOTDIR')) return undefined;
    throw error;
  }
}

/** A folder gets its state within milliseconds of its making. */
function isBeingMade(path: string): boolean {
  const made = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  return Date.now() - made < 10_000;
}

function listFolder(path: string): string[] {
  try {
    return readdirSync(path);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return [];
    throw error;
  }
}

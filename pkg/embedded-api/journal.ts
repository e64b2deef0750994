/**
 * Objects in one file, so that a server goes on where it stopped: the state when the file was
 * written, then one line a change. A change is in the file before its request is answered; what
 * the kernel has taken survives a killed process, though not a machine that loses power.
 */
import {
  closeSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { isJsonObject, textAt, valueAt, type Json, type JsonObject } from './json.ts';
import { keyOf, type KubeObject } from './object.ts';
import type { Storage } from './storage.ts';
import type { Change } from './watch-log.ts';

/** What a server leaves behind when it stops. */
export interface SavedState {
  readonly revision: number;
  readonly objects: readonly (readonly [resource: string, object: KubeObject])[];
}

const format = 'podwire-embedded-api/1';

/** The file is written anew when it holds this many changes, and more than objects twice. */
const rewriteFromChanges = 10_000;

/**
 * The state in a file; undefined when there is no file. A torn last line, as a crash may leave,
 * is a change nobody was told of, and is left out.
 *
 * @throws {AgentError} InvalidState for anything else that is no line of ours
 */
export function readJournal(path: string): SavedState | undefined {
  const content = readIfThere(path);
  if (content === undefined) return undefined;
  let revision = 0;
  const objects = new Map<string, readonly [string, KubeObject]>();
  for (const { text, number, isLast } of linesOf(content)) {
    const line = parseLine(text);
    const at = valueAt(line, 'revision');
    if (
      !isJsonObject(line) ||
      typeof at !== 'number' ||
      (number === 1 && line['format'] !== format)
    ) {
      if (isLast && number > 1) break;
      throw new AgentError(
        'InvalidState',
        `Cannot read ${path}: line ${number} is no line of ${format}`,
        { details: { path, line: number } },
      );
    }
    revision = at;
    const resource = textAt(line, 'resource');
    const object = line['object'];
    if (isJsonObject(object)) {
      objects.set(`${resource} ${keyOf(object as KubeObject)}`, [resource, object as KubeObject]);
    } else if (resource !== '') objects.delete(`${resource} ${textAt(line, 'key')}`);
  }
  return { revision, objects: [...objects.values()] };
}

/** Follows a storage and keeps its file up to date until disposed of. */
export class Journal implements Disposable {
  readonly #path: string;
  readonly #storage: Storage;
  readonly #log: Logger;
  readonly #unsubscribe: () => void;
  /** Undefined while the file is behind: the next change writes it anew. */
  #fd: number | undefined;
  #changes = 0;

  /**
   * Writes the file with all there is and follows from then on.
   *
   * @throws {Error} with the errno, when the file cannot be written
   */
  constructor(path: string, storage: Storage, log: Logger) {
    this.#path = path;
    this.#storage = storage;
    this.#log = log;
    this.#rewrite();
    this.#unsubscribe = storage.subscribe((change) => this.#follow(change));
  }

  [Symbol.dispose](): void {
    this.#unsubscribe();
    if (this.#fd === undefined) return;
    fsyncSync(this.#fd);
    closeSync(this.#fd);
    this.#fd = undefined;
  }

  #follow(change: Change): void {
    this.#changes += 1;
    try {
      const isLong = this.#changes > rewriteFromChanges && this.#changes > 2 * this.#objectCount();
      if (this.#fd === undefined || isLong) this.#rewrite();
      else writeFileSync(this.#fd, changeLine(change));
    } catch (error) {
      // The change is committed in memory already; a full disk must not end the server.
      this.#log.error({ err: error, path: this.#path }, 'cannot save objects');
      if (this.#fd !== undefined) closeSync(this.#fd);
      this.#fd = undefined;
    }
  }

  #objectCount(): number {
    let count = 0;
    for (const _ of this.#storage.all()) count += 1;
    return count;
  }

  /** Writes everything to a file beside the old one, then puts it in its place. */
  #rewrite(): void {
    const temporary = `${this.#path}.new`;
    const fd = openSync(temporary, 'w', 0o600);
    try {
      const { revision } = this.#storage;
      let text = `${JSON.stringify({ format, revision })}\n`;
      for (const [resource, , object] of this.#storage.all()) {
        text += `${JSON.stringify({ revision, resource, object })}\n`;
        if (text.length < 1024 * 1024) continue;
        writeFileSync(fd, text);
        text = '';
      }
      writeFileSync(fd, text);
      fsyncSync(fd);
      renameSync(temporary, this.#path);
    } catch (error) {
      closeSync(fd);
      rmSync(temporary, { force: true });
      throw error;
    }
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = fd;
    this.#changes = 0;
  }
}

function changeLine({ revision, resource, key, type, object }: Change): string {
  const line: JsonObject =
    type === 'DELETED' ? { revision, resource, key } : { revision, resource, object };
  return `${JSON.stringify(line)}\n`;
}

function readIfThere(path: string): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}

interface Line {
  readonly text: string;
  readonly number: number;
  readonly isLast: boolean;
}

/** Lines cut from bytes: the file may be longer than the longest string there can be. */
function* linesOf(content: Buffer): Iterable<Line> {
  let start = 0;
  for (let number = 1; start < content.length; number++) {
    const newline = content.indexOf(0x0a, start);
    const end = newline < 0 ? content.length : newline;
    yield { text: content.toString('utf8', start, end), number, isLast: end + 1 >= content.length };
    start = end + 1;
  }
}

function parseLine(text: string): Json | undefined {
  try {
    return JSON.parse(text) as Json;
  } catch {
    return undefined;
  }
}

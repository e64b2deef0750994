/** Files without a name: the kernel takes them back however their last user ends. */
import { randomUUID } from 'node:crypto';
import { closeSync, fstatSync, openSync, readSync, unlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const chunkBytes = 1 << 20;

export class UnnamedFile implements Disposable {
  readonly fd: number;

  /** @throws {Error} what the system says when there is no room for one */
  constructor(folder: string = tmpdir()) {
    const path = join(folder, `podwire-${randomUUID()}`);
    this.fd = openSync(path, 'wx+', 0o600);
    unlinkSync(path);
  }

  /** What is in it, whoever wrote it; `lastBytes` of it, or all. */
  read(lastBytes = Number.POSITIVE_INFINITY): Buffer {
    return Buffer.concat([...this.chunks(lastBytes)]);
  }

  /** The same, a part at a time. */
  *chunks(lastBytes = Number.POSITIVE_INFINITY): Generator<Buffer> {
    const end = fstatSync(this.fd).size;
    for (let at = Math.max(0, end - lastBytes); at < end;) {
      const bytes = Buffer.alloc(Math.min(chunkBytes, end - at));
      const length = readSync(this.fd, bytes, 0, bytes.length, at);
      // Somebody has made it shorter.
      if (length === 0) return;
      yield bytes.subarray(0, length);
      at += length;
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.fd);
  }
}

/** The node's WireGuard key: made once, and the same after every restart. */
import { link, mkdir, open, rm, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import { formatKey, generatePrivateKey, parseKey } from '#pkg/host-network/wireguard-key.ts';

/**
 * The key in this file, as `wg genkey` prints it; a new one in a new file of mode 0600 when there is
 * none. One that others may read is kept from them from now on.
 *
 * @throws {AgentError} InvalidKey when the file holds something else: it is not overwritten, since
 *   the other nodes know the node by its key
 */
export async function ensurePrivateKey(path: string): Promise<Uint8Array> {
  const there = await read(path);
  if (there !== undefined) return there;
  await write(path, formatKey(generatePrivateKey()));
  const made = await read(path);
  if (made !== undefined) return made;
  throw new AgentError(
    'InvalidKey',
    `Cannot use ${path}: expected a file or nothing, and it is a link to nothing`,
  );
}

const forOthers = 0o077;

async function keep(file: FileHandle): Promise<void> {
  try {
    await file.chmod(0o600);
  } catch (error) {
    // Mounted by somebody who has seen to it, or has not: not for us to change.
    if (!isErrno(error, 'EROFS')) throw error;
  }
}

async function read(path: string): Promise<Uint8Array | undefined> {
  let text: string;
  try {
    await using file = await open(path);
    if (((await file.stat()).mode & forOthers) !== 0) await keep(file);
    text = await file.readFile('utf8');
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw new AgentError('ReadFailed', `Cannot read ${path}`, { cause: error });
  }
  const key = parseKey(text.trim());
  if (key !== undefined) return key;
  throw new AgentError(
    'InvalidKey',
    `Cannot use ${path}: expected a private key, 32 bytes in base64; remove the file for a new key`,
  );
}

/** Complete or not there; a file that came meanwhile is left alone. */
async function write(path: string, key: string): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    await mkdir(dirname(path), { recursive: true });
    await rm(temporary, { force: true });
    await using file = await open(temporary, 'wx', 0o600);
    await file.writeFile(`${key}\n`);
    await file.sync();
    await link(temporary, path);
  } catch (error) {
    if (!isErrno(error, 'EEXIST')) {
      throw new AgentError('WriteFailed', `Cannot write ${path}`, { cause: error });
    }
  } finally {
    await rm(temporary, { force: true });
  }
}

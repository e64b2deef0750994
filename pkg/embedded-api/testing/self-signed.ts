/** A certificate for tests: made by openssl, since node:crypto cannot sign X.509. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import type { TlsIdentity } from '#pkg/embedded-api/http/listener.ts';

/** Key and certificate for 127.0.0.1 and localhost; undefined where openssl is missing. */
export async function selfSigned(): Promise<TlsIdentity | undefined> {
  const folder = await mkdtemp(join(tmpdir(), 'podwire-tls-'));
  const [keyPath, certPath] = [join(folder, 'key.pem'), join(folder, 'cert.pem')];
  try {
    const words =
      'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=podwire-test';
    const names = ['-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost'];
    const made = await execa(
      'openssl',
      [...words.split(' '), ...names, '-keyout', keyPath, '-out', certPath],
      { reject: false },
    );
    if (made.exitCode !== 0) return undefined;
    return { key: await readFile(keyPath, 'utf8'), cert: await readFile(certPath, 'utf8') };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Certificates of a test's own authority, made by openssl. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface ServerIdentity {
  readonly cert: string;
  readonly key: string;
}

export interface TestAuthority {
  /** The authority's certificate. */
  readonly ca: string;
  /** A certificate for 127.0.0.1, or for a name only. */
  issue(name: string): ServerIdentity;
}

/** Undefined, with the reason, where openssl is missing: a test then skips. */
export function createAuthority(): TestAuthority | string {
  const dir = mkdtempSync(join(tmpdir(), 'podwire-ca-'));
  try {
    const ca = selfSigned(dir, 'ca');
    return { ca: ca.cert, issue: (name) => issue(ca, name) };
  } catch (error) {
    return `openssl does not work: ${String(error)}`;
  } finally {
    rmSync(dir, { recursive: true });
  }
}

const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

function selfSigned(dir: string, name: string): ServerIdentity {
  const [key, cert] = [join(dir, `${name}.key`), join(dir, `${name}.crt`)];
  openssl('req', '-x509', ...newKey, '-keyout', key, '-out', cert, '-subj', `/CN=${name}`);
  return { cert: readFileSync(cert, 'utf8'), key: readFileSync(key, 'utf8') };
}

function issue(ca: ServerIdentity, name: string): ServerIdentity {
  const dir = mkdtempSync(join(tmpdir(), 'podwire-cert-'));
  try {
    const at = (file: string): string => join(dir, file);
    const names = name === '127.0.0.1' ? 'IP:127.0.0.1' : `DNS:${name}`;
    writePem(at('ca.crt'), ca.cert);
    writePem(at('ca.key'), ca.key);
    writePem(at('ext'), `subjectAltName=${names}\n`);
    openssl(
      'req',
      '-new',
      ...newKey,
      '-keyout',
      at('key'),
      '-out',
      at('csr'),
      '-subj',
      `/CN=${name}`,
    );
    const signing = ['-CA', at('ca.crt'), '-CAkey', at('ca.key'), '-CAcreateserial', '-days', '2'];
    const files = ['-in', at('csr'), '-extfile', at('ext'), '-out', at('crt')];
    openssl('x509', '-req', ...files, ...signing);
    return { cert: readFileSync(at('crt'), 'utf8'), key: readFileSync(at('key'), 'utf8') };
  } finally {
    rmSync(dir, { recursive: true });
  }
}

function writePem(path: string, text: string): void {
  writeFileSync(path, text, { mode: 0o600 });
}

function openssl(...args: readonly string[]): void {
  execFileSync('openssl', args, { stdio: 'pipe' });
}

/** Who we are to the server at this moment: read anew for each request, since it rotates. */
import { createHash } from 'node:crypto';
import type { Clock } from '#pkg/clock/clock.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { ClusterConfig, Pem } from './cluster-config.ts';
import { createExecCredentialSource } from './exec-credential.ts';
import { createRotatingFile } from './rotating-file.ts';

/** What a TLS connection is made with. */
export interface TlsMaterial {
  readonly ca: string | undefined;
  readonly certificate: string | undefined;
  readonly key: string | undefined;
  /** Equal fingerprints: an existing connection still proves who both sides are. */
  readonly fingerprint: string;
}

export interface Credentials {
  /** The Authorization header of a request that starts now; undefined = none. */
  authorization(): Promise<string | undefined>;
  /** For a connection that starts now. */
  tls(): Promise<TlsMaterial>;
  /** The server answered 401: forget everything cached, so that the next request reads it anew. */
  forget(): void;
}

/**
 * Credentials of a cluster configuration. An open watch survives the end of its token, so rotation
 * concerns new requests only; a new certificate or authority needs a new connection, which
 * the fingerprint tells.
 */
export function createCredentials(config: ClusterConfig, clock: Clock): Credentials {
  const { user } = config;
  const exec =
    user.exec === undefined
      ? undefined
      : createExecCredentialSource(user.exec, execClusterInfo(config), clock);
  const tokenFile =
    user.tokenFile === undefined ? undefined : createRotatingFile(user.tokenFile, clock);
  const ca = createPemSource(config.ca, clock);
  const certificate = createPemSource(user.certificate, clock);
  const key = createPemSource(user.key, clock);

  async function authorization(): Promise<string | undefined> {
    const token = (await tokenFile?.read()) ?? user.token ?? (await exec?.current())?.token;
    return token === undefined || token === '' ? undefined : `Bearer ${token}`;
  }

  async function tls(): Promise<TlsMaterial> {
    const plugin = await exec?.current();
    const material = {
      ca: await ca.read(),
      certificate: (await certificate.read()) ?? plugin?.certificate,
      key: (await key.read()) ?? plugin?.key,
    };
    return { ...material, fingerprint: fingerprint(Object.values(material)) };
  }

  return {
    authorization,
    tls,
    forget: () => {
      for (const source of [exec, tokenFile, ca, certificate, key]) source?.forget();
    },
  };
}

interface PemSource {
  read(): Promise<string | undefined>;
  forget(): void;
}

function createPemSource(pem: Pem | undefined, clock: Clock): PemSource {
  if (pem?.kind !== 'file') {
    return { read: () => Promise.resolve(pem?.text), forget: () => undefined };
  }
  const file = createRotatingFile(pem.path, clock);
  return {
    read: async () => {
      const text = await file.read();
      // Node takes an empty authority for none given, and then trusts all those of the web.
      if (text.includes('-----BEGIN ')) return text;
      throw new AgentError('CredentialsUnreadable', `Cannot use ${pem.path}: it has no PEM block`);
    },
    forget: () => file.forget(),
  };
}

function execClusterInfo(config: ClusterConfig): object {
  return {
    server: config.server,
    'tls-server-name': config.serverName,
    'insecure-skip-tls-verify': config.insecure,
    ...(config.ca?.kind === 'text'
      ? { 'certificate-authority-data': Buffer.from(config.ca.text).toString('base64') }
      : {}),
  };
}

function fingerprint(parts: readonly (string | undefined)[]): string {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part ?? '-').update('\0');
  return hash.digest('base64');
}

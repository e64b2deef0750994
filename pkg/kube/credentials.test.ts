import { mkdtemp, rename, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { ClusterConfig, ExecConfig, UserConfig } from './cluster-config.ts';
import { serializeError } from '#pkg/log/logger.ts';
import { createCredentials } from './credentials.ts';

let dir = '';
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'podwire-credentials-'));
});
afterEach(() => rm(dir, { recursive: true }));

function config(user: UserConfig, more: Partial<ClusterConfig> = {}): ClusterConfig {
  return {
    server: 'https://host',
    serverName: undefined,
    insecure: false,
    ca: undefined,
    namespace: 'default',
    user,
    ...more,
  };
}

function pem(text: string): string {
  return `-----BEGIN CERTIFICATE-----\n${text}\n-----END CERTIFICATE-----`;
}

describe('a token file', () => {
  test('is read again when it changes, trimmed', async () => {
    const tokenFile = join(dir, 'token');
    await writeFile(tokenFile, ' one\n');
    const credentials = createCredentials(config({ tokenFile }), new FakeClock());
    expect(await credentials.authorization()).toBe('Bearer one');
    // The kubelet swaps files by rename.
    await writeFile(join(dir, 'new'), 'two\n');
    await rename(join(dir, 'new'), tokenFile);
    expect(await credentials.authorization()).toBe('Bearer two');
  });

  test('is read again after 60 s or a refusal, though nothing about the file seems to change', async () => {
    const tokenFile = join(dir, 'token');
    const when = new Date(1_000_000);
    const write = async (text: string): Promise<void> => {
      await writeFile(tokenFile, text);
      await utimes(tokenFile, when, when);
    };
    const clock = new FakeClock();
    const credentials = createCredentials(config({ tokenFile }), clock);
    await write('aaa');
    expect(await credentials.authorization()).toBe('Bearer aaa');
    await write('bbb');
    await clock.advance(59_999);
    expect(await credentials.authorization()).toBe('Bearer aaa');
    await clock.advance(1);
    expect(await credentials.authorization()).toBe('Bearer bbb');
    await write('ccc');
    credentials.forget();
    expect(await credentials.authorization()).toBe('Bearer ccc');
  });

  test('that is away for a moment does not fail requests; after a refusal it does', async () => {
    const tokenFile = join(dir, 'token');
    await writeFile(tokenFile, 'one');
    const credentials = createCredentials(config({ tokenFile }), new FakeClock());
    await credentials.authorization();
    await rm(tokenFile);
    expect(await credentials.authorization()).toBe('Bearer one');
    credentials.forget();
    await expect(credentials.authorization()).rejects.toThrow(`Cannot read ${tokenFile}`);
  });

  test('wins over a token, and nothing at all is anonymous', async () => {
    const tokenFile = join(dir, 'token');
    await writeFile(tokenFile, 'from-file');
    const clock = new FakeClock();
    const both = createCredentials(config({ tokenFile, token: 'fixed' }), clock);
    expect(await both.authorization()).toBe('Bearer from-file');
    const fixed = createCredentials(config({ token: 'fixed' }), clock);
    expect(await fixed.authorization()).toBe('Bearer fixed');
    expect(await createCredentials(config({}), clock).authorization()).toBeUndefined();
  });
});

test('a new certificate or authority changes the fingerprint of connections', async () => {
  const path = join(dir, 'ca.crt');
  await writeFile(path, pem('first'));
  const ca = { kind: 'file', path } as const;
  const credentials = createCredentials(config({}, { ca }), new FakeClock());
  const first = await credentials.tls();
  expect(await credentials.tls()).toEqual(first);
  await writeFile(join(dir, 'new'), pem('second'));
  await rename(join(dir, 'new'), path);
  const second = await credentials.tls();
  expect(second.ca).toBe(pem('second'));
  expect(second.fingerprint).not.toBe(first.fingerprint);
});

test('an authority file without a certificate is an error, not the trust of Node itself', async () => {
  const path = join(dir, 'ca.crt');
  for (const text of ['', '\n', 'not PEM']) {
    await writeFile(path, text);
    const credentials = createCredentials(
      config({}, { ca: { kind: 'file', path } }),
      new FakeClock(),
    );
    await expect(credentials.tls()).rejects.toThrow(`Cannot use ${path}: it has no PEM block`);
  }
});

test('a file that is empty while it is written anew keeps its last text', async () => {
  const tokenFile = join(dir, 'token');
  const path = join(dir, 'ca.crt');
  await writeFile(tokenFile, 'one');
  await writeFile(path, pem('one'));
  const credentials = createCredentials(
    config({ tokenFile }, { ca: { kind: 'file', path } }),
    new FakeClock(),
  );
  const before = await credentials.tls();
  expect(await credentials.authorization()).toBe('Bearer one');
  await writeFile(tokenFile, '');
  await writeFile(path, '');
  expect(await credentials.tls()).toEqual(before);
  expect(await credentials.authorization()).toBe('Bearer one');
  await writeFile(tokenFile, 'two');
  expect(await credentials.authorization()).toBe('Bearer two');
});

describe('a credential plugin', () => {
  /** Prints what `output` makes of the number of its run. */
  async function plugin(output: string, more: Partial<ExecConfig> = {}): Promise<ExecConfig> {
    const runs = join(dir, 'runs');
    const script = `echo x >>${runs}\nRUN=$(($(wc -l <${runs})))\n${output}`;
    await writeFile(join(dir, 'plugin.sh'), script);
    return {
      apiVersion: 'client.authentication.k8s.io/v1',
      command: 'sh',
      args: [join(dir, 'plugin.sh')],
      env: { GREETING: 'hello' },
      installHint: 'install it from the shop',
      provideClusterInfo: true,
      ...more,
    };
  }
  const print = (status: string): string =>
    `echo '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":${status}}'`;

  test('runs once until shortly before its credential expires, and again after a refusal', async () => {
    const clock = new FakeClock(Date.parse('2026-01-01T00:00:00Z'));
    const status = `{"token":"t'$RUN'","expirationTimestamp":"2026-01-01T00:10:00Z"}`;
    const exec = await plugin(print(status));
    const credentials = createCredentials(config({ exec }), clock);
    const together = await Promise.all([credentials.authorization(), credentials.authorization()]);
    expect(together).toEqual(['Bearer t1', 'Bearer t1']);
    await clock.advance(589_000);
    expect(await credentials.authorization()).toBe('Bearer t1');
    credentials.forget();
    expect(await credentials.authorization()).toBe('Bearer t2');
    await clock.advance(1_000);
    expect(await credentials.authorization()).toBe('Bearer t3');
  });

  test('is told about the cluster, and may give a client certificate', async () => {
    const exec = await plugin(
      `echo "$KUBERNETES_EXEC_INFO $GREETING" >${join(dir, 'info')}
      ${print('{"clientCertificateData":"C","clientKeyData":"K"}')}`,
    );
    const credentials = createCredentials(config({ exec }), new FakeClock());
    expect(await credentials.tls()).toMatchObject({ certificate: 'C', key: 'K' });
    expect(await credentials.authorization()).toBeUndefined();
    const { readFile } = await import('node:fs/promises');
    const info = await readFile(join(dir, 'info'), 'utf8');
    expect(info).toContain('"interactive":false');
    expect(info).toContain('"server":"https://host"');
    expect(info).toContain('hello');
  });

  test.each([
    [
      'echo SECRET; echo SECRET >&2; exit 3',
      'Cannot run credential plugin sh: exit code 3; install it from the shop',
    ],
    ['echo not json', 'Cannot use the output of credential plugin sh: not JSON'],
    [print('{}'), 'status must have a token or a clientCertificateData'],
    [print('{"clientCertificateData":"C"}'), 'both clientCertificateData and clientKeyData'],
    [print('{"token":"SECRET","expirationTimestamp":"soon"}'), 'status.expirationTimestamp'],
    [`echo '{"apiVersion":"v2","status":{"token":"SECRET"}}'`, 'apiVersion'],
  ])('that does "%s" is an error without secrets', async (script, message) => {
    const exec = await plugin(script);
    const credentials = createCredentials(config({ exec }), new FakeClock());
    const error = await credentials.authorization().catch((thrown: unknown) => thrown);
    expect(error).toHaveProperty('message', expect.stringContaining(message));
    expect(JSON.stringify(serializeError(error))).not.toContain('SECRET');
  });
});

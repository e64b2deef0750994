/**
 * The demo's API server as a process: on 127.0.0.1 of the machine, for kubectl, and in the control
 * plane's namespace, for the nodes.
 */
import { randomBytes } from 'node:crypto';
import { renameSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { once } from 'node:events';
import { startEmbeddedApi } from '#pkg/embedded-api/embedded-api.ts';
import { kubeconfigFor } from '#pkg/embedded-api/kubeconfig-for.ts';
import type { AgentError } from '#pkg/errors/agent-error.ts';
import { runCommand } from '#pkg/exec/run.ts';
import { addressBytes, parseAddress } from '#pkg/ip/address.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { warmUpThreadPool, withNetns } from '#pkg/netns/netns.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { machineKubeconfig, nodeKubeconfig } from './layout.ts';
import { namespacePath } from './namespaces.ts';
import type { RunFolder } from './run-folder.ts';
import { topologyOf } from './topology.ts';

export interface ApiProcessOptions {
  readonly run: RunFolder;
  readonly log: Logger;
  /** Ends the process at once: its thread is in the wrong namespace. */
  readonly die: (error: AgentError) => never;
}

const apiPort = 6443;
const serviceCIDRs = ['10.96.0.0/16', 'fd00:10:96::/112'];

/** Serves until the signal aborts. The kubeconfigs appear when it is ready. */
export async function runApi(options: ApiProcessOptions, signal: AbortSignal): Promise<void> {
  const { run, log, die } = options;
  const { control } = topologyOf(run.id).hosts;
  const tls = await makeIdentity(run, control.ip);
  const token = randomBytes(24).toString('base64url');
  const fd = await socketIn(control.namespace, control.ip, die);
  await using api = await startEmbeddedApi({
    listen: [{ host: '127.0.0.1', port: 0 }, { fd }],
    tls,
    tokens: [{ token, user: 'demo' }],
    serviceCIDRs,
    log,
  });
  const [machineUrl = '', nodeUrl = ''] = api.urls;
  for (const [path, server] of [
    [machineKubeconfig(run), machineUrl],
    [nodeKubeconfig(run), nodeUrl],
  ] as const) {
    const text = kubeconfigFor({
      server,
      certificateAuthority: tls.cert,
      token,
      name: 'podwire-demo',
    });
    writeFileSync(`${path}.new`, text, { mode: 0o600 });
    renameSync(`${path}.new`, path);
  }
  if (!signal.aborted) await once(signal, 'abort');
}

/** kubectl sends its token over TLS only. */
async function makeIdentity(run: RunFolder, ip: string): Promise<{ key: string; cert: string }> {
  const keyPath = join(run.path, 'api.key');
  const certPath = join(run.path, 'api.crt');
  const words =
    'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj /CN=podwire-demo';
  const names = ['-addext', `subjectAltName=IP:127.0.0.1,IP:${ip}`];
  await runCommand(
    'openssl',
    [...words.split(' '), ...names, '-keyout', keyPath, '-out', certPath],
    {
      timeoutMs: 20_000,
    },
  );
  return { key: await readFile(keyPath, 'utf8'), cert: await readFile(certPath, 'utf8') };
}

const AF_INET = 2;
const SOCK_STREAM = 1;

/** A TCP socket bound inside a namespace: it stays there, whoever listens on it. */
async function socketIn(
  namespace: string,
  ip: string,
  die: (error: AgentError) => never,
): Promise<number> {
  const sys = await openSys();
  await warmUpThreadPool();
  const bindSocket = (): number => {
    const fd = sys.socket(AF_INET, SOCK_STREAM, 0);
    sys.bind(fd, socketAddress(ip, apiPort));
    return fd;
  };
  return withNetns(sys, namespacePath(namespace), bindSocket, die);
}

/** `struct sockaddr_in`: family in the machine's byte order, port and address in network order. */
function socketAddress(ip: string, port: number): Uint8Array {
  const bytes = new Uint8Array(16);
  new Uint16Array(bytes.buffer, 0, 1)[0] = AF_INET;
  new DataView(bytes.buffer).setUint16(2, port);
  bytes.set(addressBytes(parseAddress(ip)), 4);
  return bytes;
}

/** The configuration every container of a cluster is given by its ServiceAccount. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import type { ClusterConfig } from './cluster-config.ts';

/** Where the kubelet projects token, ca.crt and namespace. */
const serviceAccountDir = '/var/run/secrets/kubernetes.io/serviceaccount';

/**
 * Configuration from the ServiceAccount's files. `host` and `port` are KUBERNETES_SERVICE_HOST and
 * KUBERNETES_SERVICE_PORT, or a real server's address for an agent that itself provides the Service
 * address those name. Token and CA are named as files and re-read as they rotate.
 */
export async function inClusterConfig(
  where: { readonly host: string | undefined; readonly port: string | undefined },
  dir: string = serviceAccountDir,
): Promise<ClusterConfig> {
  if (where.host === undefined || where.host === '' || where.port === undefined) {
    throw new AgentError(
      'NotInCluster',
      'Cannot use the in-cluster configuration: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set; give a kubeconfig when running outside a cluster',
    );
  }
  const port = Number(where.port);
  if (!Number.isInteger(port) || port < 1 || port > 65_535) {
    throw new AgentError(
      'NotInCluster',
      `Cannot use the in-cluster configuration: KUBERNETES_SERVICE_PORT must be a port number, it is "${where.port}"`,
    );
  }
  const tokenFile = join(dir, 'token');
  await readFile(tokenFile).catch((error: unknown) => {
    throw new AgentError(
      'NotInCluster',
      `Cannot use the in-cluster configuration: ${tokenFile} is not readable; does the Pod set automountServiceAccountToken: false?`,
      { cause: error },
    );
  });
  const host = where.host.includes(':') ? `[${where.host}]` : where.host;
  return {
    server: `https://${host}:${port}`,
    serverName: undefined,
    insecure: false,
    ca: { kind: 'file', path: join(dir, 'ca.crt') },
    user: { tokenFile },
    namespace: await readNamespace(join(dir, 'namespace')),
  };
}

async function readNamespace(path: string): Promise<string> {
  try {
    const text = (await readFile(path, 'utf8')).trim();
    return text === '' ? 'default' : text;
  } catch (error) {
    // Tokens projected by hand often come without this file.
    if (isErrno(error, 'ENOENT')) return 'default';
    throw error;
  }
}

/** The kubeconfig file (client-go's clientcmd/api/v1), as far as an agent can use it. */
import { readFile } from 'node:fs/promises';
import { dirname, isAbsolute, join } from 'node:path';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { LineCounter, parseDocument } from 'yaml';
import { z } from 'zod';
import type { ClusterConfig, ExecConfig, Pem, UserConfig } from './cluster-config.ts';

const optionalText = z
  .string()
  .nullish()
  .transform((text) => (text === null || text === '' ? undefined : text));

const clusterSchema = z.object({
  server: z.string(),
  'certificate-authority': optionalText,
  'certificate-authority-data': optionalText,
  'insecure-skip-tls-verify': z.boolean().nullish(),
  'tls-server-name': optionalText,
  'proxy-url': optionalText,
});

const execSchema = z.object({
  apiVersion: z.enum(['client.authentication.k8s.io/v1', 'client.authentication.k8s.io/v1beta1']),
  command: z.string().min(1),
  args: z.array(z.string()).nullish(),
  env: z.array(z.object({ name: z.string(), value: z.string() })).nullish(),
  installHint: optionalText,
  provideClusterInfo: z.boolean().nullish(),
  interactiveMode: z.enum(['Never', 'IfAvailable', 'Always']).nullish(),
});

const userSchema = z.object({
  token: optionalText,
  tokenFile: optionalText,
  'client-certificate': optionalText,
  'client-certificate-data': optionalText,
  'client-key': optionalText,
  'client-key-data': optionalText,
  exec: execSchema.nullish(),
  username: optionalText,
  as: optionalText,
  'auth-provider': z.unknown().optional(),
});

const contextSchema = z.object({
  cluster: z.string(),
  user: optionalText,
  namespace: optionalText,
});

const kubeconfigSchema = z.object({
  'current-context': optionalText,
  contexts: z.array(z.object({ name: z.string(), context: contextSchema })).nullish(),
  clusters: z.array(z.object({ name: z.string(), cluster: clusterSchema })).nullish(),
  users: z.array(z.object({ name: z.string(), user: userSchema.nullish() })).nullish(),
});

/** What the command line may override. */
export interface KubeconfigChoice {
  /** Instead of the file's current-context. */
  readonly context?: string;
  /** Instead of the cluster's server; everything else of the context is kept. */
  readonly server?: string;
}

/** Reads one kubeconfig file. Errors name the file, the field and what was expected there. */
export async function loadKubeconfig(
  path: string,
  choice: KubeconfigChoice = {},
): Promise<ClusterConfig> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw new AgentError('WrongKubeconfig', `Cannot read kubeconfig ${path}`, { cause: error });
  });
  return parseKubeconfig(text, path, choice);
}

/** Like {@link loadKubeconfig}, for text; relative file names are relative to `path`'s directory. */
export function parseKubeconfig(
  text: string,
  path: string,
  choice: KubeconfigChoice = {},
): ClusterConfig {
  const at = new Place(path);
  const file = parseFile(text, at);

  const contextName = choice.context ?? file['current-context'];
  if (contextName === undefined) throw at.wrong('current-context', 'must name a context');
  const context = findNamed(at, file.contexts, { list: 'contexts', name: contextName }).context;
  const cluster = findNamed(at, file.clusters, { list: 'clusters', name: context.cluster }).cluster;
  const user =
    context.user === undefined
      ? undefined
      : findNamed(at, file.users, { list: 'users', name: context.user }).user;

  const clusterAt = `clusters[name=${context.cluster}].cluster`;
  if (cluster['proxy-url'] !== undefined) {
    throw at.wrong(`${clusterAt}.proxy-url`, 'is not supported: connect without a proxy');
  }
  return {
    server: readServer(choice.server ?? cluster.server, (expected) =>
      choice.server === undefined
        ? at.wrong(`${clusterAt}.server`, expected)
        : new AgentError('WrongKubeconfig', `Cannot use server "${choice.server}": it ${expected}`),
    ),
    serverName: cluster['tls-server-name'],
    insecure: cluster['insecure-skip-tls-verify'] === true,
    ca: readPem(at, `${clusterAt}.certificate-authority`, {
      data: cluster['certificate-authority-data'],
      file: cluster['certificate-authority'],
    }),
    user: user ? readUser(at, `users[name=${context.user}].user`, user) : {},
    namespace: context.namespace ?? 'default',
  };
}

function parseFile(text: string, at: Place): z.infer<typeof kubeconfigSchema> {
  const lineCounter = new LineCounter();
  // Pretty errors quote the line, and with it perhaps a token.
  const document = parseDocument(text, { lineCounter, prettyErrors: false });
  const broken = document.errors[0];
  if (broken !== undefined) {
    const { line } = lineCounter.linePos(broken.pos[0]);
    throw new AgentError(
      'WrongKubeconfig',
      `Cannot read kubeconfig ${at.path}: not YAML at line ${line}: ${broken.code}`,
    );
  }
  const parsed = kubeconfigSchema.safeParse(document.toJS());
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const field = issue?.path.map((part) => (typeof part === 'number' ? `[${part}]` : String(part)));
  throw at.wrong(
    field?.join('.').replaceAll('.[', '[') || '(the file)',
    `is wrong: ${issue?.message ?? 'not a kubeconfig'}`,
  );
}

function findNamed<T extends { readonly name: string }>(
  at: Place,
  entries: readonly T[] | null | undefined,
  want: { readonly list: string; readonly name: string },
): T {
  const found = entries?.find((entry) => entry.name === want.name);
  if (found !== undefined) return found;
  const names = (entries ?? []).map((entry) => `"${entry.name}"`).join(', ');
  throw at.wrong(want.list, `must have an entry named "${want.name}"; it has ${names || 'none'}`);
}

function readServer(server: string, wrong: (expected: string) => AgentError): string {
  const url = URL.canParse(server) ? new URL(server) : undefined;
  if (url === undefined || (url.protocol !== 'https:' && url.protocol !== 'http:')) {
    throw wrong('must be a URL like https://host:6443');
  }
  if (url.search !== '' || url.hash !== '' || url.username !== '') {
    throw wrong('must not have a query, a fragment or a user');
  }
  return `${url.origin}${url.pathname}`.replace(/\/+$/, '');
}

/** As in client-go, data wins over a file. */
function readPem(
  at: Place,
  field: string,
  from: { readonly data: string | undefined; readonly file: string | undefined },
): Pem | undefined {
  if (from.data !== undefined) {
    const text = Buffer.from(from.data, 'base64').toString('utf8');
    if (!text.includes('-----BEGIN ')) throw at.wrong(`${field}-data`, 'must be PEM in base64');
    return { kind: 'text', text };
  }
  return from.file === undefined ? undefined : { kind: 'file', path: at.resolve(from.file) };
}

function readUser(at: Place, field: string, user: z.infer<typeof userSchema>): UserConfig {
  if (user.username !== undefined) {
    throw at.wrong(
      `${field}.username`,
      'is not supported: API servers have no basic authentication',
    );
  }
  if (user.as !== undefined) throw at.wrong(`${field}.as`, 'is not supported: no impersonation');
  if (user['auth-provider'] !== undefined && user['auth-provider'] !== null) {
    throw at.wrong(`${field}.auth-provider`, 'is not supported: use exec');
  }
  const certificate = readPem(at, `${field}.client-certificate`, {
    data: user['client-certificate-data'],
    file: user['client-certificate'],
  });
  const key = readPem(at, `${field}.client-key`, {
    data: user['client-key-data'],
    file: user['client-key'],
  });
  if ((certificate === undefined) !== (key === undefined)) {
    throw at.wrong(field, 'must have both client-certificate and client-key, or neither');
  }
  return {
    ...(user.token === undefined ? {} : { token: user.token }),
    ...(user.tokenFile === undefined ? {} : { tokenFile: at.resolve(user.tokenFile) }),
    ...(certificate === undefined ? {} : { certificate }),
    ...(key === undefined ? {} : { key }),
    ...(user.exec ? { exec: readExec(at, `${field}.exec`, user.exec) } : {}),
  };
}

function readExec(at: Place, field: string, exec: z.infer<typeof execSchema>): ExecConfig {
  if (exec.interactiveMode === 'Always') {
    throw at.wrong(`${field}.interactiveMode`, 'must not be Always: an agent has no terminal');
  }
  return {
    apiVersion: exec.apiVersion,
    // A bare name is looked up in PATH; with a slash it is a file, relative to the kubeconfig.
    command: exec.command.includes('/') ? at.resolve(exec.command) : exec.command,
    args: exec.args ?? [],
    env: Object.fromEntries((exec.env ?? []).map(({ name, value }) => [name, value])),
    installHint: exec.installHint ?? '',
    provideClusterInfo: exec.provideClusterInfo === true,
  };
}

/** The file being read: makes its errors and resolves its relative names. */
class Place {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  wrong(field: string, expected: string): AgentError {
    return new AgentError(
      'WrongKubeconfig',
      `Cannot use kubeconfig ${this.path}: ${field} ${expected}`,
    );
  }

  resolve(file: string): string {
    return isAbsolute(file) ? file : join(dirname(this.path), file);
  }
}

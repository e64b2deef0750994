/** Credential plugins: a program that prints a token or a client certificate (KEP-541). */
import type { Clock } from '#pkg/clock/clock.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { execa, ExecaError } from 'execa';
import { z } from 'zod';
import type { ExecConfig } from './cluster-config.ts';

/** What the plugin printed, as far as requests need it. */
export interface ExecCredential {
  readonly token: string | undefined;
  readonly certificate: string | undefined;
  readonly key: string | undefined;
}

export interface ExecCredentialSource {
  /** The plugin's credential; runs it when there is none yet, or when it has (nearly) expired. */
  current(): Promise<ExecCredential>;
  /** The server refused it: run the plugin again at the next use. */
  forget(): void;
}

/** Asked again this long before the expiry, so that a request never starts with a dead token. */
const earlyMs = 10_000;
const pluginTimeoutMs = 60_000;

/** `clusterInfo` is handed to the plugin where its configuration asks for it. */
export function createExecCredentialSource(
  config: ExecConfig,
  clusterInfo: object,
  clock: Clock,
): ExecCredentialSource {
  let known: { readonly credential: ExecCredential; readonly untilMs: number } | undefined;
  let running: Promise<ExecCredential> | undefined;

  async function refresh(): Promise<ExecCredential> {
    const status = await runPlugin(config, clusterInfo);
    const expiresMs =
      status.expirationTimestamp === undefined ? Infinity : Date.parse(status.expirationTimestamp);
    const credential = {
      token: status.token,
      certificate: status.clientCertificateData,
      key: status.clientKeyData,
    };
    known = { credential, untilMs: expiresMs - earlyMs };
    return credential;
  }

  return {
    current: () => {
      if (known !== undefined && clock.now() < known.untilMs) {
        return Promise.resolve(known.credential);
      }
      running ??= refresh().finally(() => {
        running = undefined;
      });
      return running;
    },
    forget: () => {
      known = undefined;
    },
  };
}

const statusSchema = z.object({
  token: z.string().min(1).optional(),
  clientCertificateData: z.string().min(1).optional(),
  clientKeyData: z.string().min(1).optional(),
  expirationTimestamp: z.iso.datetime({ offset: true }).optional(),
});

async function runPlugin(
  config: ExecConfig,
  clusterInfo: object,
): Promise<z.infer<typeof statusSchema>> {
  const spec = {
    interactive: false,
    ...(config.provideClusterInfo ? { cluster: clusterInfo } : {}),
  };
  const info = { apiVersion: config.apiVersion, kind: 'ExecCredential', spec };
  const { stdout } = await execa(config.command, config.args, {
    env: { ...config.env, KUBERNETES_EXEC_INFO: JSON.stringify(info) },
    stdin: 'ignore',
    timeout: pluginTimeoutMs,
  }).catch((error: unknown) => {
    const hint = config.installHint === '' ? '' : `; ${config.installHint}`;
    // Not the error itself: it quotes the arguments and all that was printed, maybe a token.
    throw new AgentError(
      'CredentialPluginFailed',
      `Cannot run credential plugin ${config.command}: ${howItFailed(error)}${hint}`,
    );
  });
  return readOutput(config, stdout);
}

function howItFailed(error: unknown): string {
  if (!(error instanceof ExecaError)) return 'unknown cause';
  if (error.timedOut) return `not finished after ${pluginTimeoutMs / 1000} s`;
  if (error.exitCode !== undefined) return `exit code ${error.exitCode}`;
  return error.signal ?? error.code ?? 'unknown cause';
}

function readOutput(config: ExecConfig, stdout: string): z.infer<typeof statusSchema> {
  const schema = z
    .object({ apiVersion: z.literal(config.apiVersion), status: statusSchema })
    .refine(
      ({ status }) => status.token !== undefined || status.clientCertificateData !== undefined,
      'status must have a token or a clientCertificateData',
    )
    .refine(
      ({ status }) =>
        (status.clientCertificateData === undefined) === (status.clientKeyData === undefined),
      'status must have both clientCertificateData and clientKeyData, or neither',
    );
  try {
    return schema.parse(JSON.parse(stdout)).status;
  } catch (error) {
    // The output may hold a secret: say what is wrong with it, never what it is.
    const why =
      error instanceof z.ZodError
        ? error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`).join('; ')
        : 'not JSON';
    throw new AgentError(
      'CredentialPluginFailed',
      `Cannot use the output of credential plugin ${config.command}: ${why}`,
    );
  }
}

/** The command line and environment of podwire-proxy: kube-proxy's, flag by flag. */
import { readFile } from 'node:fs/promises';
import { parseCommandLine, type GivenFlag } from '#pkg/config/command-line.ts';
import { featureGateWarnings } from '#pkg/config/feature-gates.ts';
import {
  completeProxyConfig,
  type CompleteProxyConfig,
} from '#pkg/config/proxy-config-defaults.ts';
import { parseProxyConfigFile } from '#pkg/config/proxy-config-file.ts';
import { checkedProxyConfig, type ProxyConfig } from '#pkg/config/proxy-config.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { flags, parseBoolean, usage, type Draft, type Flag } from './flags.ts';

export interface ProxyOptions {
  readonly config: ProxyConfig;
  /** The same as a file spells it: what /configz shows and what a change is told from. */
  readonly file: CompleteProxyConfig;
  /** Where it was read from; undefined = flags. */
  readonly configPath: string | undefined;
  readonly nodeName: string;
  readonly action: Action;
  /** The flags as given, by name. */
  readonly flags: ReadonlyMap<string, string>;
  /** Fail where the configured mode is not possible, rather than serve by another. */
  readonly strictMode: boolean;
  /** What was given but is not used: for the log. */
  readonly warnings: readonly string[];
}

/** What the program is asked to do. */
export type Action =
  | { readonly kind: 'run' }
  /** Removes what any mode left, then ends. */
  | { readonly kind: 'cleanup' }
  /** Makes the settings that need full privileges, then ends. */
  | { readonly kind: 'init-only' }
  | { readonly kind: 'write-config'; readonly path: string };

/** The person asked for help or the version: here it is. */
export interface Answered {
  readonly kind: 'answered';
  readonly text: string;
}

export interface Surroundings {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The host's name: the last resort for the Node's. */
  readonly hostname: string;
  readonly version: string;
  /** The name the program was called by: "kube-proxy" where it stands in for it. */
  readonly program: string;
}

/**
 * Reads flags, environment and configuration file. As in kube-proxy a file decides alone, but for
 * the flags of logging, --hostname-override and --master.
 *
 * @throws {AgentError} WrongUsage or InvalidConfig
 */
export async function readOptions(
  argv: readonly string[],
  surroundings: Surroundings,
): Promise<ProxyOptions | Answered> {
  const given = parseCommandLine(argv, flags);
  if (isOn(given, 'help')) return { kind: 'answered', text: usage(surroundings.program) };
  if (valueOf(given, 'version') !== undefined && valueOf(given, 'version') !== 'false') {
    return { kind: 'answered', text: `${surroundings.version}\n` };
  }
  const configPath = valueOf(given, 'config') || undefined;
  const { file, warnings } = await readFileAndFlags(given, configPath);
  const override = hostnameOverride(valueOf(given, 'hostname-override'));
  const complete = override === undefined ? file : { ...file, hostnameOverride: override };
  const config = checkedProxyConfig(complete, configPath);
  const master = serverUrl(valueOf(given, 'master') || valueOf(given, 'apiserver') || undefined);
  return {
    config: { ...config, master },
    file: complete,
    configPath,
    strictMode: isOn(given, 'strict-mode'),
    nodeName: nodeName(config, surroundings),
    action: actionOf(given),
    flags: new Map(given.map(({ flag, value }) => [flag.name, value])),
    warnings: [...warnings, ...featureGateWarnings(file.featureGates)],
  };
}

type Given = readonly GivenFlag<Flag>[];

async function readFileAndFlags(
  given: Given,
  path: string | undefined,
): Promise<{ readonly file: CompleteProxyConfig; readonly warnings: readonly string[] }> {
  if (path === undefined) return { file: withFlags(completeProxyConfig({}), given), warnings: [] };
  const yaml = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw new AgentError('InvalidConfig', `Cannot read configuration ${path}`, { cause });
  });
  const { file, warnings } = parseProxyConfigFile(yaml, path);
  const ignored = given.filter(({ flag }) => !flag.besideFile);
  // What does not count is still refused when it makes no sense.
  withFlags(completeProxyConfig({}), ignored);
  return {
    file: withFlags(
      completeProxyConfig(file),
      given.filter(({ flag }) => flag.besideFile),
    ),
    warnings: [
      ...warnings.map((warning) => `${path}: ${warning}`),
      ...ignored.map(({ flag }) => `flag --${flag.name} does not count beside --config`),
    ],
  };
}

/** Ports of their own come last: they complete an address, whichever was given first. */
function withFlags(file: CompleteProxyConfig, given: Given): CompleteProxyConfig {
  const draft: Draft = structuredClone(file) as Draft;
  const isPort = ({ flag }: GivenFlag<Flag>): boolean => flag.name.endsWith('-port');
  for (const { flag, value } of given.filter((g) => !isPort(g))) flag.set(draft, value);
  for (const { flag, value } of given.filter(isPort)) flag.set(draft, value);
  return draft;
}

function actionOf(given: Given): Action {
  const path = valueOf(given, 'write-config-to');
  if (path !== undefined && path !== '') return { kind: 'write-config', path };
  if (isOn(given, 'cleanup')) return { kind: 'cleanup' };
  return isOn(given, 'init-only') ? { kind: 'init-only' } : { kind: 'run' };
}

function hostnameOverride(given: string | undefined): string | undefined {
  if (given === undefined || given === '') return undefined;
  const name = given.trim().toLowerCase();
  if (name !== '') return name;
  throw new AgentError(
    'WrongUsage',
    `Cannot use --hostname-override ${JSON.stringify(given)}: expected the name of a Node`,
  );
}

function nodeName(config: ProxyConfig, { env, hostname }: Surroundings): string {
  const name = (config.hostnameOverride ?? env['NODE_NAME'] ?? hostname).trim().toLowerCase();
  if (name !== '') return name;
  throw new AgentError(
    'WrongUsage',
    'Cannot tell which Node this is: give --hostname-override, or NODE_NAME in the environment',
  );
}

function serverUrl(given: string | undefined): string | undefined {
  if (given === undefined || /^https?:\/\/[^/]/.test(given)) return given?.replace(/\/+$/, '');
  throw new AgentError(
    'WrongUsage',
    `Cannot use --master ${JSON.stringify(given)}: expected a URL as https://10.0.0.1:6443`,
  );
}

/** The last one counts. */
function valueOf(given: Given, name: string): string | undefined {
  return given.findLast(({ flag }) => flag.name === name)?.value;
}

function isOn(given: Given, name: string): boolean {
  const value = valueOf(given, name);
  return value !== undefined && parseBoolean(name, value);
}

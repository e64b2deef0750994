/**
 * Finds which iptables to use. The kernel has two packet filters that answer to the command
 * `iptables`: the old one (legacy) and nf_tables. Rules in one are invisible in the other and both
 * see every packet, so on a node everybody must use the same one.
 */
import { families, type Family } from '#pkg/ip/address.ts';
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';

export type Backend = 'nf_tables' | 'legacy';

/** Runs a program; `pkg/exec` in the daemon, inside a namespace in tests. */
export type CommandRunner = (
  file: string,
  args: readonly string[],
  options: { readonly input?: string; readonly timeoutMs: number; readonly signal: AbortSignal },
) => Promise<{ readonly stdout: string; readonly stderr: string }>;

/** One family's iptables on this node. */
export interface IptablesTool {
  readonly family: Family;
  readonly backend: Backend;
  /** "1.8.9" */
  readonly version: string;
  /** Names of the programs to call. */
  readonly save: string;
  readonly restore: string;
  /** MASQUERADE --random-fully: without it two connections can race for one source port. */
  readonly randomFully: boolean;
  readonly run: CommandRunner;
}

interface Variant {
  /** What stands between "iptables" and "-save": "-nft", "-legacy" or nothing. */
  readonly suffix: string;
  readonly backend: Backend;
  readonly version: string;
}

/** The families whose nat table can be used here, and why the others cannot. */
export interface DetectedIptables {
  readonly tools: ReadonlyMap<Family, IptablesTool>;
  readonly failures: ReadonlyMap<Family, AgentError>;
}

/**
 * The tools of the backend this node uses, as the images of Kubernetes choose it: the one where the
 * kubelet left its hint chain, else the one that holds more rules, else nf_tables. The other one where
 * the kernel does not have that.
 *
 * @throws {AgentError} CommandMissing when no iptables is installed
 */
export async function detectIptables(
  run: CommandRunner,
  signal: AbortSignal,
): Promise<DetectedIptables> {
  const [first, ...others] = await chooseVariants(run, signal);
  const found = await toolsOf(first, run, signal);
  for (const other of isLacking(found) ? others : []) {
    const second = await toolsOf(other, run, signal);
    if (second.tools.size > 0) return second;
  }
  return found;
}

/** Whether the kernel refuses the backend: not so when it was too busy to answer. */
function isLacking({ failures, tools }: DetectedIptables): boolean {
  return tools.size === 0 && [...failures.values()].every((e) => isErrno(e, 'CommandFailed'));
}

async function toolsOf(
  variant: Variant,
  run: CommandRunner,
  signal: AbortSignal,
): Promise<DetectedIptables> {
  const tools = new Map(families.map((family) => [family, toolOf(family, variant, run)]));
  const failures = new Map<Family, AgentError>();
  const attempt = async (family: Family, save: string): Promise<void> => {
    try {
      await run(save, ['-t', 'nat'], { timeoutMs: 60_000, signal });
      failures.delete(family);
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof AgentError)) throw error;
      failures.set(family, error);
    }
  };
  await Promise.all([...tools].map(([family, { save }]) => attempt(family, save)));
  // The first who ask have the kernel load its filter, and one may be told that there is none yet.
  for (const [family, { save }] of tools) if (failures.has(family)) await attempt(family, save);
  for (const family of failures.keys()) tools.delete(family);
  return { tools, failures };
}

/** The one to use first. */
async function chooseVariants(
  run: CommandRunner,
  signal: AbortSignal,
): Promise<readonly [Variant, ...Variant[]]> {
  const probes = ['-nft', '-legacy'].map((suffix) => probe(run, suffix, signal));
  const [nft, legacy] = await Promise.all(probes);
  if (nft !== undefined && legacy !== undefined) {
    return (await usesLegacy(run, signal)) ? [legacy, nft] : [nft, legacy];
  }
  const only = nft ?? legacy ?? (await probe(run, '', signal));
  if (only === undefined) throw missing();
  return [only];
}

/** Whether this node's rules live in the legacy filter. */
async function usesLegacy(run: CommandRunner, signal: AbortSignal): Promise<boolean> {
  const save = async (program: string): Promise<string> => {
    try {
      return (await run(program, [], { timeoutMs: 30_000, signal })).stdout;
    } catch (error) {
      signal.throwIfAborted();
      // A backend the kernel does not have holds no rules.
      if (error instanceof AgentError) return '';
      throw error;
    }
  };
  const saveBoth = async (suffix: string): Promise<string> => {
    const programs = ['iptables', 'ip6tables'].map((name) => `${name}${suffix}-save`);
    return (await Promise.all(programs.map(save))).join('');
  };
  const nft = await saveBoth('-nft');
  if (kubeletHint.test(nft)) return false;
  // Without a table name: naming one would make the kernel load the legacy filter.
  const legacy = await saveBoth('-legacy');
  if (kubeletHint.test(legacy)) return true;
  return countRules(legacy) > countRules(nft);
}

/** The kubelet makes one of these in table mangle with the host's iptables (KEP-3178). */
const kubeletHint = /^:KUBE-(?:IPTABLES-HINT|KUBELET-CANARY) /m;

function countRules(text: string): number {
  return text.match(/^-A /gm)?.length ?? 0;
}

async function probe(
  run: CommandRunner,
  suffix: string,
  signal: AbortSignal,
): Promise<Variant | undefined> {
  let stdout: string;
  try {
    ({ stdout } = await run(`iptables${suffix}`, ['--version'], { timeoutMs: 30_000, signal }));
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
  // "iptables v1.8.9 (nf_tables)"; before 1.8 there was only legacy and no word about it.
  const [, version = '0', backend] = /v(\d+(?:\.\d+)*)(?: \((\w+)\))?/.exec(stdout) ?? [];
  return { suffix, version, backend: backend === 'nf_tables' ? 'nf_tables' : 'legacy' };
}

function toolOf(family: Family, variant: Variant, run: CommandRunner): IptablesTool {
  const name = `${family === 'ip' ? 'iptables' : 'ip6tables'}${variant.suffix}`;
  return {
    family,
    backend: variant.backend,
    version: variant.version,
    save: `${name}-save`,
    restore: `${name}-restore`,
    randomFully: atLeast(variant.version, [1, 6, 2]),
    run,
  };
}

function atLeast(version: string, wanted: readonly number[]): boolean {
  const parts = version.split('.').map(Number);
  for (const [i, want] of wanted.entries()) {
    const have = parts[i] ?? 0;
    if (have !== want) return have > want;
  }
  return true;
}

function isMissing(error: unknown): boolean {
  return isErrno(error, 'CommandMissing') || isErrno(error, 'ENOENT');
}

function missing(): AgentError {
  return new AgentError(
    'CommandMissing',
    'Cannot find iptables: install the package iptables (1.6.2 or newer), or put it in PATH',
  );
}

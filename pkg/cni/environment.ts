/** The parameters of one call, which the specification passes as environment variables. */
import { CniError, cniCode } from './cni-error.ts';

export type CniCommand = 'ADD' | 'DEL' | 'CHECK' | 'GC' | 'STATUS' | 'VERSION';

/** Environment variables as a process has them. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** Which attachment: a container's one interface. */
export interface Attachment {
  readonly containerId: string;
  readonly ifName: string;
}

/** ADD and CHECK always name a namespace; a runtime may have none any more at DEL. */
export type CniParameters =
  | (CallParameters & { readonly command: 'ADD' | 'CHECK'; readonly netns: string })
  | (CallParameters & {
      readonly command: 'DEL' | 'GC' | 'STATUS';
      readonly netns: string | undefined;
    })
  | { readonly command: 'VERSION' };

export interface CallParameters extends Attachment {
  /** Verbatim; see `parseCniArgs`. */
  readonly args: string;
  /** Directories to find other plugins in, most preferred first. */
  readonly path: readonly string[];
  /** CNI_NETNS may be the plugin's own namespace. */
  readonly ownNetnsAllowed: boolean;
}

const required: Readonly<Record<CniCommand, readonly string[]>> = {
  ADD: ['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME'],
  CHECK: ['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME'],
  DEL: ['CNI_CONTAINERID', 'CNI_IFNAME'],
  GC: [],
  STATUS: [],
  VERSION: [],
};

/**
 * Reads and checks the variables; `undefined` when CNI_COMMAND is not set, which is how people call
 * a plugin. All that are missing are named in one error. CNI_PATH is optional, as the specification
 * has it (the reference library demands it): a plugin that delegates nothing needs none.
 *
 * @throws {CniError} code 4
 */
export function parseEnvironment(env: Environment): CniParameters | undefined {
  const command = env['CNI_COMMAND'];
  if (command === undefined || command === '') return undefined;
  if (!isCommand(command)) throw invalid(`unknown CNI_COMMAND: ${command}`);
  const missing = required[command].filter((name) => (env[name] ?? '') === '');
  if (missing.length > 0) throw invalid(`required env variables [${missing.join(',')}] missing`);
  if (command === 'VERSION') return { command };
  const containerId = env['CNI_CONTAINERID'] ?? '';
  const ifName = env['CNI_IFNAME'] ?? '';
  if (required[command].includes('CNI_CONTAINERID')) {
    checkContainerId(containerId);
    checkIfName(ifName);
  }
  const netns = env['CNI_NETNS'] ?? '';
  const call = {
    containerId,
    ifName,
    args: env['CNI_ARGS'] ?? '',
    path: (env['CNI_PATH'] ?? '').split(':').filter((directory) => directory !== ''),
    ownNetnsAllowed: ['1', 'true'].includes((env['CNI_NETNS_OVERRIDE'] ?? '').toLowerCase()),
  };
  if (command === 'ADD' || command === 'CHECK') return { ...call, command, netns };
  return { ...call, command, netns: netns === '' ? undefined : netns };
}

const identifier = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

/** The specification's rule for a container ID, which it also has for a network's name. */
export function isIdentifier(text: string): boolean {
  return identifier.test(text);
}

/** Whether the kernel takes this name for an interface (dev_valid_name() and IFNAMSIZ). */
export function interfaceNameProblem(name: string): string | undefined {
  if (name === '') return 'is empty';
  if (new TextEncoder().encode(name).byteLength > 15) return 'is longer than 15 bytes';
  if (name === '.' || name === '..') return 'is . or ..';
  if (/[/:\s]/.test(name)) return 'contains / or : or a blank';
  return undefined;
}

function isCommand(text: string): text is CniCommand {
  return Object.hasOwn(required, text);
}

function checkContainerId(containerId: string): void {
  if (isIdentifier(containerId)) return;
  throw invalid(
    `invalid characters in CNI_CONTAINERID "${containerId}": expected letters, digits, _ . -, starting with a letter or digit`,
  );
}

function checkIfName(ifName: string): void {
  const problem = interfaceNameProblem(ifName);
  if (problem !== undefined) throw invalid(`CNI_IFNAME "${ifName}" ${problem}`);
}

function invalid(message: string): CniError {
  return new CniError(cniCode.invalidEnvironment, message);
}

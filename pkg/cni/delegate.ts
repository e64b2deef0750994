/**
 * Calling another plugin from ours (CNI spec 1.1.0, "Section 4: Plugin Delegation"): with the same
 * environment and configuration. Our own plugins run in this process; others are found in CNI_PATH
 * and run, and their errors come through as they are.
 */
import { accessSync, constants } from 'node:fs';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { CniError, cniCode } from './cni-error.ts';
import type { CniCommand, Environment } from './environment.ts';
import { readString, fieldsOf } from './json-fields.ts';
import type { CniPlugin, CniRequest } from './plugin.ts';
import type { CniResult } from './result.ts';
import { parseResult } from './versions.ts';

/**
 * Runs a program to its end; the process that hosts us knows how. A name without a slash is looked
 * for in the environment's PATH.
 *
 * @throws {Error} ENOENT when there is no such program
 */
export type RunProgram = (file: string, options: ProgramOptions) => ProgramOutcome;

export interface ProgramOptions {
  readonly args?: readonly string[];
  readonly input: string;
  readonly environment: Environment;
  /** Its standard error comes back to us; else it goes where ours goes, to the runtime's log. */
  readonly captureStderr?: boolean;
}

export interface ProgramOutcome {
  /** Exit code; undefined when a signal ended it. */
  readonly exitCode: number | undefined;
  readonly stdout: string;
  /** Only when it was to be captured. */
  readonly stderr?: string;
}

/** All the functions of a delegate exist: a program decides itself what it does not implement. */
export type CniDelegate = Required<Omit<CniPlugin, 'about'>>;

export interface Delegates {
  /** Plugins of this process, by type. */
  readonly own: ReadonlyMap<string, CniPlugin>;
  readonly runProgram: RunProgram;
}

/** The plugin of this type: ours, or a program in CNI_PATH. */
export function delegateFor(type: string, { own, runProgram }: Delegates): CniDelegate {
  const plugin = own.get(type);
  if (plugin !== undefined) return ownDelegate(plugin);
  const call = (command: CniCommand, request: CniRequest): string =>
    runPlugin({ type, command, request }, runProgram);
  return {
    add: (request) => parseAddOutput(call('ADD', request), { type, request }),
    del: (request) => void call('DEL', request),
    check: (request) => void call('CHECK', request),
    status: (request) => void call('STATUS', request),
    gc: (request) => void call('GC', request),
  };
}

function ownDelegate(plugin: CniPlugin): CniDelegate {
  return {
    add: plugin.add,
    del: plugin.del,
    check: (request) => plugin.check?.(request),
    status: (request) => plugin.status?.(request),
    gc: (request) => plugin.gc?.(request),
  };
}

interface Call {
  readonly type: string;
  readonly command: CniCommand;
  readonly request: CniRequest;
}

/** The program's standard output, once it has ended well. */
function runPlugin({ type, command, request }: Call, runProgram: RunProgram): string {
  const { exitCode, stdout } = runProgram(findPlugin(type, request.path), {
    input: request.config.text,
    environment: { ...request.environment, CNI_COMMAND: command },
  });
  if (exitCode === 0) return stdout;
  throw parseErrorOutput(stdout) ?? programFailed(type, exitCode);
}

function findPlugin(type: string, path: readonly string[]): string {
  if (type === '' || type.includes('/')) {
    throw new CniError(cniCode.invalidConfig, `Cannot find plugin "${type}": invalid plugin name`);
  }
  const file = path.map((directory) => `${directory}/${type}`).find(isExecutable);
  if (file !== undefined) return file;
  throw new CniError(
    cniCode.invalidConfig,
    `failed to find plugin "${type}" in path [${path.join(' ')}]`,
  );
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function parseAddOutput(
  stdout: string,
  { type, request }: { readonly type: string; readonly request: CniRequest },
): CniResult {
  let json: unknown;
  try {
    json = JSON.parse(stdout);
  } catch (cause) {
    throw new CniError(cniCode.decode, `Cannot read the result of plugin "${type}": not JSON`, {
      cause,
    });
  }
  return parseResult(json, request.config.cniVersion, `result of ${type}`);
}

/** The delegate's own error document; undefined when it printed none. */
function parseErrorOutput(stdout: string): CniError | undefined {
  try {
    const fields = fieldsOf(JSON.parse(stdout), 'error');
    const code = fields.values['code'];
    const message = readString(fields, 'msg');
    if (typeof code !== 'number' || message === undefined) return undefined;
    return new CniError(code, message, { hint: readString(fields, 'details') });
  } catch {
    return undefined;
  }
}

function programFailed(type: string, exitCode: number | undefined): AgentError {
  const how = exitCode === undefined ? 'was killed' : `exited with ${exitCode}`;
  return new AgentError(
    'CommandFailed',
    `Cannot run plugin "${type}": it ${how} without an error document`,
  );
}

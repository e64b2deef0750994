/**
 * The protocol between a runtime and a plugin (CNI spec 1.1.0, section 2): parameters in
 * environment variables, configuration on standard input, one document on standard output, and an
 * exit code. Pure of process: the program hands in what it has and prints what it gets.
 */
import { CniError, cniCode, cniErrorDocument } from './cni-error.ts';
import { parseNetworkConfig, type NetworkConfig } from './config.ts';
import {
  parseEnvironment,
  type CniCommand,
  type CniParameters,
  type Environment,
} from './environment.ts';
import type { CniPlugin, CniRequest } from './plugin.ts';
import {
  cniVersions,
  formatResult,
  isAtLeast,
  newestCniVersion,
  type CniVersion,
} from './versions.ts';

/** What the protocol needs of the process it runs in. */
export interface CniProcess {
  readonly environment: Environment;
  /** All of standard input. Not called for VERSION: nobody need write one. */
  readonly readStdin: () => string;
  /** Whether the path is the very namespace the plugin runs in; false when there is nothing. */
  readonly isOwnNetns: (path: string) => boolean;
}

/** A call that has a configuration: any but VERSION. */
type Call = Exclude<CniParameters, { readonly command: 'VERSION' }>;

/** What the process has to print, and its exit code. */
export interface CniAnswer {
  readonly exitCode: 0 | 1;
  readonly stdout: string;
  readonly stderr: string;
}

/** Answers one call. Never throws: every failure is an error document. */
export function answerCni(plugin: CniPlugin, process: CniProcess): CniAnswer {
  let config: NetworkConfig | undefined;
  try {
    const parameters = parseEnvironment(process.environment);
    if (parameters === undefined) return about(plugin);
    if (parameters.command === 'VERSION') return success(versionDocument());
    config = parseNetworkConfig(readConfig(process));
    checkVersionGate(parameters.command, config);
    checkNetns(parameters, process);
    return run(plugin, parameters, { ...parameters, config, environment: process.environment });
  } catch (error) {
    const document = cniErrorDocument(error, config?.cniVersion ?? newestCniVersion);
    return { exitCode: 1, stdout: `${JSON.stringify(document)}\n`, stderr: '' };
  }
}

function about(plugin: CniPlugin): CniAnswer {
  const versions = `CNI protocol versions supported: ${cniVersions.join(', ')}`;
  return { exitCode: 0, stdout: '', stderr: `${plugin.about}\n${versions}\n` };
}

function versionDocument(): object {
  return { cniVersion: newestCniVersion, supportedVersions: cniVersions };
}

function readConfig(process: CniProcess): string {
  try {
    return process.readStdin();
  } catch (cause) {
    throw new CniError(
      cniCode.io,
      'Cannot read the network configuration from standard input: reading failed',
      { cause },
    );
  }
}

const introducedIn: Readonly<Record<CniCommand, CniVersion>> = {
  ADD: '0.1.0',
  DEL: '0.1.0',
  VERSION: '0.1.0',
  CHECK: '0.4.0',
  GC: '1.1.0',
  STATUS: '1.1.0',
};

/** Commands a configuration of an older version does not have. */
function checkVersionGate(command: CniCommand, config: NetworkConfig): void {
  const floor = introducedIn[command];
  if (isAtLeast(config.cniVersion, floor)) return;
  throw new CniError(cniCode.incompatibleVersion, `config version does not allow ${command}`, {
    hint: `config is "${config.cniVersion}", ${command} needs ${floor} or newer`,
  });
}

/** Checked before anything runs: in the host's own namespace "set lo down" is the host's lo. */
function checkNetns({ netns, ownNetnsAllowed }: Call, process: CniProcess): void {
  if (netns === undefined || ownNetnsAllowed || !process.isOwnNetns(netns)) return;
  throw new CniError(
    cniCode.invalidNetns,
    "plugin's netns and netns from CNI_NETNS should not be the same",
    { hint: `CNI_NETNS is ${netns}` },
  );
}

function run(plugin: CniPlugin, parameters: Call, request: CniRequest): CniAnswer {
  switch (parameters.command) {
    case 'ADD': {
      const result = plugin.add({ ...request, netns: parameters.netns });
      return success(formatResult(result, request.config.cniVersion));
    }
    case 'DEL':
      plugin.del(request);
      return nothing;
    case 'CHECK':
      plugin.check?.({ ...request, netns: parameters.netns });
      return nothing;
    case 'STATUS':
      plugin.status?.(request);
      return nothing;
    case 'GC':
      plugin.gc?.(request);
      return nothing;
  }
}

const nothing: CniAnswer = { exitCode: 0, stdout: '', stderr: '' };

function success(document: object): CniAnswer {
  return { exitCode: 0, stdout: `${JSON.stringify(document)}\n`, stderr: '' };
}

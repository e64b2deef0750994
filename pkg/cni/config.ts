/** The network configuration a runtime writes to a plugin's standard input. */
import { messageOf } from '#pkg/errors/agent-error.ts';
import { CniError, cniCode } from './cni-error.ts';
import { isIdentifier, type Attachment } from './environment.ts';
import {
  fieldsOf,
  readObject,
  readObjects,
  readString,
  unexpected,
  type JsonFields,
} from './json-fields.ts';
import type { CniResult } from './result.ts';
import {
  cniVersions,
  isCniVersion,
  parseResult,
  readVersion,
  type CniVersion,
} from './versions.ts';

export interface NetworkConfig {
  readonly cniVersion: CniVersion;
  /** The network's name: unique on the node, and part of every name derived from it. */
  readonly name: string;
  /** The whole document; a plugin reads its own fields from it. */
  readonly fields: JsonFields;
  /** The document as it came, for plugins we delegate to. */
  readonly text: string;
}

/**
 * Checks, in this order: JSON (code 6), `name` (code 7), `cniVersion` (code 1). A configuration
 * without `cniVersion` is of version 0.1.0, which did not have the field; libcni writes "" then.
 *
 * @throws {CniError}
 */
export function parseNetworkConfig(text: string): NetworkConfig {
  const fields = parseDocument(text);
  const name = readString(fields, 'name') ?? '';
  if (!isIdentifier(name)) {
    throw unexpected(
      'name',
      'letters, digits, _ . - starting with a letter or digit',
      fields.values['name'],
    );
  }
  const cniVersion = readVersion(fields) ?? '0.1.0';
  if (!isCniVersion(cniVersion)) {
    throw new CniError(cniCode.incompatibleVersion, 'incompatible CNI versions', {
      hint: `config is "${cniVersion}", plugin supports ${JSON.stringify(cniVersions)}`,
    });
  }
  return { cniVersion, name, fields, text };
}

/**
 * The result of the plugins before this one, or for DEL and CHECK of the whole ADD.
 *
 * @throws {CniError}
 */
export function readPrevResult(config: NetworkConfig): CniResult | undefined {
  const json = config.fields.values['prevResult'] ?? undefined;
  return json === undefined ? undefined : parseResult(json, config.cniVersion);
}

/**
 * The attachments GC must keep. A missing list is an error and never "none": nothing asked us to
 * delete everything. But `null` is Go's empty list: CRI-O sends it when the network has no pod, as
 * after a reboot. The field was named `cni.dev/attachments` before 1.1.0 was final, and runtimes
 * send both.
 *
 * @throws {CniError} code 7
 */
export function readValidAttachments(config: NetworkConfig): readonly Attachment[] {
  const { fields } = config;
  const keys = ['cni.dev/valid-attachments', 'cni.dev/attachments'];
  const key =
    keys.find((k) => Array.isArray(fields.values[k])) ??
    keys.find((k) => fields.values[k] === null);
  if (key === undefined) {
    throw unexpected(
      'cni.dev/valid-attachments',
      'an array of attachments',
      fields.values['cni.dev/valid-attachments'],
    );
  }
  return readObjects(fields, key).map((item) => {
    const containerId = readString(item, 'containerID');
    const ifName = readString(item, 'ifname');
    if (containerId === undefined || ifName === undefined) {
      throw unexpected(item.path, 'an object with containerID and ifname', item.values);
    }
    return { containerId, ifName };
  });
}

/** `args.cni`: what a configuration sets for its containers, by convention. */
export function readArgs(config: NetworkConfig): JsonFields | undefined {
  const args = readObject(config.fields, 'args');
  return args === undefined ? undefined : readObject(args, 'cni');
}

/** What the runtime adds for one container, from the capabilities the configuration declares. */
export function readRuntimeConfig(config: NetworkConfig): JsonFields | undefined {
  return readObject(config.fields, 'runtimeConfig');
}

function parseDocument(text: string): JsonFields {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new CniError(
      cniCode.decode,
      'Cannot read the network configuration from standard input: expected JSON',
      { hint: messageOf(cause) },
    );
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw new CniError(
      cniCode.decode,
      'Cannot read the network configuration from standard input: expected a JSON object',
    );
  }
  return fieldsOf(json, '');
}

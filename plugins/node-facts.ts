/** What the node daemon found out and the plugin needs: /run/podwire/node.json. */
import { readFileSync } from 'node:fs';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { networkOf, samePrefix, type Prefix } from '#pkg/ip/prefix.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import {
  fieldsOf,
  missing,
  readInteger,
  readStrings,
  unexpected,
  type JsonFields,
} from '#pkg/cni/json-fields.ts';
import { tryParsePrefix } from '#pkg/ip/prefix.ts';

export interface NodeFacts {
  /** The node's pod subnets, one a family at most. */
  readonly podCidrs: readonly Prefix[];
  /** What a pod's interface may send at once, the backend's headers already off. */
  readonly mtuBytes: number;
}

/**
 * Reads the file. Not there yet is code 11, "try again": the daemon writes it once the node has its
 * podCIDRs.
 *
 * @throws {CniError} code 11 or 7
 */
export function readNodeFacts(path: string): NodeFacts {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    const state = isErrno(cause, 'ENOENT')
      ? 'no such file; podwire-node writes it once this node has pod subnets'
      : 'it cannot be read';
    throw new CniError(cniCode.tryAgainLater, `Cannot read node facts ${path}: ${state}`, {
      cause,
    });
  }
  return parseNodeFacts(text, path);
}

/** @throws {CniError} code 7 that names the field */
export function parseNodeFacts(text: string, path: string): NodeFacts {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new CniError(cniCode.invalidConfig, `Cannot read node facts ${path}: not JSON`, {
      cause,
    });
  }
  const fields = fieldsOf(json, path);
  const mtuBytes = readInteger(fields, 'mtuBytes', { min: 68, max: 65_535 });
  if (mtuBytes === undefined) throw missing(fields, 'mtuBytes', 'a whole number');
  return { podCidrs: parsePodCidrs(fields), mtuBytes };
}

function parsePodCidrs(fields: JsonFields): readonly Prefix[] {
  const texts = readStrings(fields, 'podCIDRs');
  if (texts.length === 0) throw missing(fields, 'podCIDRs', 'at least one subnet');
  return texts.map((text, i) => {
    const prefix = tryParsePrefix(text);
    if (prefix !== undefined && samePrefix(prefix, networkOf(prefix))) return prefix;
    throw unexpected(`${fields.path}.podCIDRs[${i}]`, 'a subnet as 10.244.1.0/24', text);
  });
}

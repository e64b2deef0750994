/** The bandwidth plugin's configuration: the reference plugin's fields and meanings. */
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import { readRuntimeConfig, type NetworkConfig } from '#pkg/cni/config.ts';
import { readInteger, readObject, type JsonFields } from '#pkg/cni/json-fields.ts';
import type { RateLimit } from './bandwidth-numbers.ts';

/** What each direction may have, seen from the pod; undefined is all it can get. */
export interface BandwidthLimits {
  /** Towards the pod. */
  readonly ingress: RateLimit | undefined;
  /** From the pod. */
  readonly egress: RateLimit | undefined;
}

/**
 * The limits for this container. What the configuration itself says counts, even if that is zero;
 * else what the runtime asks for.
 *
 * @throws {CniError} code 7
 */
export function parseBandwidth(config: NetworkConfig): BandwidthLimits {
  const runtime = readRuntimeConfig(config);
  const fields = limitNames.some((name) => keyOf(config.fields, name) !== undefined)
    ? config.fields
    : runtime && readObject(runtime, 'bandwidth');
  if (fields === undefined) return { ingress: undefined, egress: undefined };
  return { ingress: readLimit(fields, 'ingress'), egress: readLimit(fields, 'egress') };
}

const limitNames = ['ingressRate', 'ingressBurst', 'egressRate', 'egressBurst'];

/** The reference refuses to count further. */
const maxBurstBits = 8 * 0xffffffff;

function readLimit(fields: JsonFields, direction: 'ingress' | 'egress'): RateLimit | undefined {
  const rateBitsPerSecond = readBits(fields, `${direction}Rate`);
  const burstBits = readBits(fields, `${direction}Burst`);
  const invalid = (state: string): CniError =>
    new CniError(cniCode.invalidConfig, `Cannot limit ${direction}: ${state}`, {
      hint: `${direction}Rate is ${rateBitsPerSecond}, ${direction}Burst is ${burstBits}`,
    });
  if (burstBits === 0 && rateBitsPerSecond !== 0) {
    throw invalid('if rate is set, burst must also be set');
  }
  if (rateBitsPerSecond === 0 && burstBits !== 0) {
    throw invalid('if burst is set, rate must also be set');
  }
  if (burstBits >= maxBurstBits) throw invalid('burst cannot be more than 4GB');
  if (rateBitsPerSecond === 0) return undefined;
  if (rateBitsPerSecond < 8 || burstBits < 8) {
    throw invalid('rate and burst must be at least 8 bits, one byte');
  }
  return { rateBitsPerSecond, burstBits };
}

function readBits(fields: JsonFields, name: string): number {
  const key = keyOf(fields, name) ?? name;
  return readInteger(fields, key, { min: 0, max: Number.MAX_SAFE_INTEGER }) ?? 0;
}

/** Go reads keys in any case, and containerd's library sends "IngressRate". */
function keyOf(fields: JsonFields, name: string): string | undefined {
  if (fields.values[name] !== undefined) return name;
  return Object.keys(fields.values).find((key) => key.toLowerCase() === name.toLowerCase());
}

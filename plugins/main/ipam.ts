/** The IPAM plugin of a configuration, as every interface plugin uses it. */
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import type { NetworkConfig } from '#pkg/cni/config.ts';
import { delegateFor, type CniDelegate } from '#pkg/cni/delegate.ts';
import { missing, readObject, readString } from '#pkg/cni/json-fields.ts';
import type { CniAddRequest, CniRequest } from '#pkg/cni/plugin.ts';
import { isEmptyDns, type CniDns, type CniResult } from '#pkg/cni/result.ts';
import { parseDns } from '#pkg/cni/versions.ts';
import type { CniSystem } from '#plugins/cni-system.ts';

/** The plugin; undefined when the configuration wants no addresses. */
export function ipamOf(system: CniSystem, request: CniRequest): CniDelegate | undefined {
  const type = parseIpamType(request.config);
  if (type === undefined) return undefined;
  return delegateFor(type, { own: system.delegates, runProgram: system.runProgram });
}

/** `ipam.type`; undefined without `ipam`, or with an empty one. */
export function parseIpamType(config: NetworkConfig): string | undefined {
  const ipam = readObject(config.fields, 'ipam');
  if (ipam === undefined || Object.keys(ipam.values).length === 0) return undefined;
  const type = readString(ipam, 'type') ?? '';
  if (type === '') throw missing(ipam, 'type', "an IPAM plugin's name");
  return type;
}

/**
 * ADD of the IPAM plugin; undefined when the configuration wants no addresses.
 *
 * @param undo gets its DEL
 * @throws {CniError} what the plugin answers, and when it gives no address
 */
export function takeAddresses(
  system: CniSystem,
  request: CniAddRequest,
  undo: DisposableStack,
): CniResult | undefined {
  const ipam = ipamOf(system, request);
  if (ipam === undefined) return undefined;
  const result = ipam.add(request);
  // Not before: an ADD that is refused because the attachment has an address must not free that.
  undo.defer(() => ipam.del(request));
  if (result.ips.length > 0) return result;
  const type = parseIpamType(request.config);
  throw new CniError(cniCode.internal, `IPAM plugin "${type}" returned missing IP config`);
}

/** `dns` of the configuration, which takes the place of the IPAM plugin's; undefined when empty. */
export function readDns(config: NetworkConfig): CniDns | undefined {
  const dns = parseDns(readObject(config.fields, 'dns'));
  return isEmptyDns(dns) ? undefined : dns;
}

/** The static IPAM plugin: addresses as configured, a drop-in for the reference plugin of that name. */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { formatPrefix, samePrefix } from '#pkg/ip/prefix.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import { readPrevResult } from '#pkg/cni/config.ts';
import type { CniAddRequest, CniPlugin } from '#pkg/cni/plugin.ts';
import { parseStatic } from './static-config.ts';

/** It keeps nothing: DEL and GC have nothing to do. */
export const staticPlugin: CniPlugin = {
  about: 'Podwire static: addresses as configured',
  add: parseStatic,
  del: () => undefined,
  check: checkStatic,
  status: () => undefined,
  gc: () => undefined,
};

/** Every address is in the result of ADD. */
function checkStatic(request: CniAddRequest): void {
  const { ips } = parseStatic(request);
  const result = readPrevResult(request.config);
  if (result === undefined) {
    throw new CniError(cniCode.invalidConfig, 'Cannot check the addresses: prevResult is missing');
  }
  for (const { address } of ips) {
    if (result.ips.some((ip) => samePrefix(ip.address, address))) continue;
    throw new AgentError(
      'AddressMissing',
      `static: Failed to find address ${formatPrefix(address)} in the result of ADD`,
    );
  }
}

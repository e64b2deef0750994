/** The proxy mode that is configured, or the one that stands in for it. */
import { isErrno, messageOf } from '#pkg/errors/agent-error.ts';
import { createIptablesMode } from './iptables-mode.ts';
import { createIpvsMode, type IpvsModeParts } from './ipvs-mode.ts';
import { createNftablesMode, type NftablesModeParts } from './nftables-mode.ts';
import type { ProxyMode } from './proxy-mode.ts';

export interface ChosenMode {
  readonly mode: ProxyMode;
  /** Why it is not the one that is configured: one sentence for people. */
  readonly fallback: string | undefined;
}

/**
 * Where the kernel cannot do IPVS a node serves Services by iptables, as kube-proxy's documentation
 * has always promised of ipvs mode, unless it is told to be strict.
 *
 * @throws {AgentError} IpvsUnusable when `strict`
 */
export async function createMode(
  parts: IpvsModeParts & NftablesModeParts,
  strict: boolean,
  signal: AbortSignal,
): Promise<ChosenMode> {
  switch (parts.config.mode) {
    case 'iptables':
      return { mode: await createIptablesMode(parts, signal), fallback: undefined };
    case 'nftables':
      return { mode: await createNftablesMode(parts, signal), fallback: undefined };
    case 'ipvs':
      return await ipvsOrIptables(parts, strict, signal);
  }
}

async function ipvsOrIptables(
  parts: IpvsModeParts,
  strict: boolean,
  signal: AbortSignal,
): Promise<ChosenMode> {
  try {
    return { mode: await createIpvsMode(parts, signal), fallback: undefined };
  } catch (error) {
    if (strict || !isErrno(error, 'IpvsUnusable')) throw error;
    const fallback = `${messageOf(error)}; serving Services by iptables instead`;
    parts.log.warn({ reason: messageOf(error) }, 'Mode ipvs is not possible; using iptables');
    return { mode: await createIptablesMode(parts, signal), fallback };
  }
}

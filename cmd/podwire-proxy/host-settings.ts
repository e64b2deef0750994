/** What the proxy sets on its host when it starts, and again when the configuration says otherwise. */
import { writeFileSync } from 'node:fs';
import type { ProxyConfig } from '#pkg/config/proxy-config.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { runCommand } from '#pkg/exec/run.ts';
import type { Family } from '#pkg/ip/address.ts';
import { parseAddress } from '#pkg/ip/address.ts';
import { containsAddress } from '#pkg/ip/prefix.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { applyConntrackSysctls } from './conntrack-sysctls.ts';
import type { ProxyHost } from './host.ts';
import { initializeIpvs } from './ipvs-support.ts';

/** Connection tracking and the OOM score. What the kernel refuses is logged: Services work without. */
export function applyHostSettings(
  config: ProxyConfig,
  log: Logger,
  which: { readonly conntrack: boolean; readonly oomScore: boolean } = {
    conntrack: true,
    oomScore: true,
  },
): readonly Error[] {
  const failures: Error[] = [];
  if (which.conntrack) {
    const accounting = config.mode === 'nftables' && config.nftables.traffic;
    const { failures: refused, written } = applyConntrackSysctls({
      ...config.conntrack,
      accounting,
    });
    for (const { path, value } of written) log.info({ path, value }, 'Setting written');
    failures.push(...refused);
  }
  if (which.oomScore) failures.push(...writeOomScore(config.oomScoreAdj));
  for (const err of failures) log.warn({ err }, 'A setting of the host stays as it is');
  return failures;
}

/**
 * `--init-only`: all that needs more than CAP_NET_ADMIN, so that the proxy itself can run with that.
 *
 * @throws {AggregateError} when a setting could not be made
 */
export async function initializeHost(
  config: ProxyConfig,
  { host, log }: { readonly host: ProxyHost; readonly log: Logger },
  signal: AbortSignal,
): Promise<void> {
  const failures = [...applyHostSettings(config, log, { conntrack: true, oomScore: false })];
  if (config.mode === 'ipvs') {
    failures.push(...(await initializeIpvs({ run: runCommand, log }, config.ipvs, signal)));
  }
  if (config.mode === 'iptables' && admitsLocalhost(config)) {
    try {
      // Later, with a node port to serve, the proxy would do it itself if it could.
      host.allowRouteLocalnet();
      log.info({ path: 'net/ipv4/conf/all/route_localnet', value: '1' }, 'Setting written');
    } catch (error) {
      failures.push(error instanceof Error ? error : new Error(String(error)));
    }
  }
  if (failures.length > 0) throw new AggregateError(failures, 'Cannot make all settings');
}

/** Whether node ports are to answer on 127.0.0.1. */
function admitsLocalhost({ iptables, nodePortAddresses }: ProxyConfig): boolean {
  if (!iptables.localhostNodePorts || nodePortAddresses === 'primary') return false;
  const family: Family = 'ip';
  const ranges = nodePortAddresses.filter((range) => range.address.family === family);
  return (
    ranges.length === 0 || ranges.some((range) => containsAddress(range, parseAddress('127.0.0.1')))
  );
}

/** proc_pid_oom_score_adj(5): less than now needs CAP_SYS_RESOURCE. */
function writeOomScore(score: number): Error[] {
  try {
    writeFileSync('/proc/self/oom_score_adj', String(score));
    return [];
  } catch (cause) {
    const message = `Cannot set oom_score_adj to ${score}: the kernel refuses`;
    return [new AgentError('OomScoreRefused', message, { cause })];
  }
}

/** `podwire diff` in mode iptables: the lines that the proxy would give to iptables-restore. */
import type { ProxyConfig } from '#pkg/config/proxy-config.ts';
import { runCommand } from '#pkg/exec/run.ts';
import { detectIptables } from '#pkg/iptables/detect.ts';
import { observeIptables } from '#pkg/iptables/observe.ts';
import { planIptables } from '#pkg/iptables/plan.ts';
import { renderRestore } from '#pkg/iptables/render.ts';
import { servesLocalhost } from '#pkg/proxy/iptables-options.ts';
import { iptablesRuleset } from '#pkg/proxy/iptables-ruleset.ts';
import { readSysctl } from '#pkg/sysctl/sysctl.ts';
import { proxyHost } from '#cmd/podwire-proxy/host.ts';
import { iptablesOptions } from '#cmd/podwire-proxy/round-options.ts';
import type { ModeDiff } from './diff-mode.ts';

/**
 * @param warn told of a family that does not work on this node
 * @throws {AggregateError} when iptables works in none, saying why for each
 */
export async function iptablesDiff(
  config: ProxyConfig,
  warn: (sentence: string) => void,
  signal: AbortSignal,
): Promise<ModeDiff> {
  const { failures, tools } = await detectIptables(runCommand, signal);
  if (tools.size === 0) {
    throw new AggregateError(failures.values(), 'Cannot use iptables in any IP family');
  }
  for (const { message } of failures.values()) warn(message);
  return {
    families: [...tools.keys()],
    diff: async ({ family, node, ports }, s) => {
      const tool = tools.get(family);
      if (tool === undefined) return '';
      const { randomFully } = tool;
      const options = iptablesOptions({ config, node, host: proxyHost }, { family, randomFully });
      const want = iptablesRuleset(ports, options);
      const rules = renderRestore(planIptables(want, await observeIptables(tool, s)));
      const localnet = servesLocalhost(options) && ports.some((port) => port.nodePort !== 0);
      return [
        ...(rules === '' ? [] : [`# ${tool.restore} --noflush\n`, rules]),
        ...(localnet && readSysctl('net/ipv4/conf/all/route_localnet') !== '1'
          ? ['# sysctl -w net.ipv4.conf.all.route_localnet=1\n']
          : []),
      ].join('');
    },
  };
}

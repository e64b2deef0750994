/** What a proxy does when its configuration file has changed. */
import type { ConfigChange } from '#pkg/config/proxy-config-change.ts';
import type { ProxyConfig } from '#pkg/config/proxy-config.ts';
import { AgentError, messageOf } from '#pkg/errors/agent-error.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { applyHostSettings } from './host-settings.ts';
import type { ProxyOptions } from './options.ts';

/** The options as they are now; undefined, and a line in the log, when the file cannot be used. */
export async function reread(
  { configPath }: ProxyOptions,
  context: { readonly reread: () => Promise<ProxyOptions>; readonly log: Logger },
): Promise<ProxyOptions | undefined> {
  const { log } = context;
  try {
    const next = await context.reread();
    for (const warning of next.warnings) log.warn({ warning }, 'Configuration');
    return next;
  } catch (error) {
    const reason = messageOf(error);
    log.error({ path: configPath, reason }, 'The new configuration is wrong; the old one stays');
    return undefined;
  }
}

/**
 * @throws {AgentError} ConfigChanged when only a new process can take the change over; whoever
 *   started this one starts the next, as with kube-proxy
 */
export function requireLive({ needRestart }: ConfigChange, path: string): void {
  if (needRestart.length === 0) return;
  throw new AgentError(
    'ConfigChanged',
    `Cannot go on with ${path} as it is now: a change of ${needRestart.join(', ')} needs a new start`,
  );
}

/** Settings of the host that are concerned are made again. */
export function adjustHost(config: ProxyConfig, { changed }: ConfigChange, log: Logger): void {
  applyHostSettings(config, log, {
    conntrack: changed.some((path) => path.startsWith('conntrack.')),
    oomScore: changed.includes('oomScoreAdj'),
  });
}

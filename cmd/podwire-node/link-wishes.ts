/** From the configuration to the choice of a link. */
import type { NodeConfig } from '#pkg/config/node-config.ts';
import type { LinkWishes } from '#pkg/overlay/link-choice.ts';

/** Which link the configuration asks for. */
export function linkWishes(config: NodeConfig): LinkWishes {
  const { iface: links, ifaceRegex: patterns, ifaceCanReach: canReach } = config;
  return { links, patterns, canReach };
}

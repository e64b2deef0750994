/**
 * Renders the proxy's ports as kube-proxy's iptables layout: same chains, comments, order and mark,
 * since tools and people grep for them. Pure: equal input gives byte-equal output.
 */
import type { Ruleset } from '#pkg/iptables/ruleset.ts';
import { IptablesBook } from './iptables-book.ts';
import type { IptablesOptions } from './iptables-options.ts';
import { portKey, type ProxiedPort } from './proxied-port.ts';

/** All rules of one family. */
export function iptablesRuleset(ports: readonly ProxiedPort[], options: IptablesOptions): Ruleset {
  const book = new IptablesBook(options);
  book.update(new Map(ports.map((port) => [portKey(port), port])), 'all', options);
  return book.ruleset();
}

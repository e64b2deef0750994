/** What a proxy mode is to `podwire diff`: it tells what the daemon would write, and writes nothing. */
import type { Family } from '#pkg/ip/address.ts';
import type { Prefix } from '#pkg/ip/prefix.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import type { ProxiedPort } from '#pkg/proxy/proxied-port.ts';

/** What one family's kernel shall serve. */
export interface Desired {
  readonly family: Family;
  /** In the order of {@link byName}. */
  readonly ports: readonly ProxiedPort[];
  /** Our own Node; undefined when the API has none of that name. */
  readonly node: NodeRecord | undefined;
  /** Ranges that cluster addresses are taken from; empty = not known. */
  readonly serviceCIDRs: readonly Prefix[];
}

export interface ModeDiff {
  /** Those that work on this node: one at least. */
  readonly families: readonly Family[];
  /**
   * Reads the kernel and says what the daemon would change in it: lines in the language of the
   * mode's own tool, as that tool reads them, comments among them. Empty = nothing.
   */
  diff(desired: Desired, signal: AbortSignal): Promise<string>;
}

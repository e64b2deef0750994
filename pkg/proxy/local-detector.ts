/**
 * How the proxy knows traffic of this node's pods (`detectLocalMode`): such traffic keeps its
 * source towards cluster addresses, everything else is masqueraded so that replies come back here.
 */
import type { Family } from '#pkg/ip/address.ts';
import { formatPrefix, type Prefix } from '#pkg/ip/prefix.ts';

export type LocalDetector =
  /** Nothing to tell pods by: no off-cluster masquerade, no short cut for pods. */
  | { readonly kind: 'none' }
  | { readonly kind: 'cluster-cidr'; readonly prefixes: readonly Prefix[] }
  | { readonly kind: 'bridge-interface'; readonly name: string }
  | { readonly kind: 'interface-name-prefix'; readonly prefix: string };

/** The source or interface a rule matches on. */
export type LocalMatch = { readonly source: string } | { readonly inInterface: string };

/**
 * The match for traffic of local pods in one family, undefined when it cannot be told. Of several
 * prefixes only the first of the family counts, as in kube-proxy.
 */
export function localMatch(detector: LocalDetector, family: Family): LocalMatch | undefined {
  switch (detector.kind) {
    case 'none':
      return undefined;
    case 'cluster-cidr': {
      const prefix = detector.prefixes.find((p) => p.address.family === family);
      return prefix === undefined ? undefined : { source: formatPrefix(prefix) };
    }
    case 'bridge-interface':
      return { inInterface: detector.name };
    case 'interface-name-prefix':
      return { inInterface: `${detector.prefix}+` };
  }
}

/** The match for traffic of anything but local pods, undefined when it cannot be told. */
export function notLocalMatch(detector: LocalDetector, family: Family): LocalMatch | undefined {
  const match = localMatch(detector, family);
  if (match === undefined) return undefined;
  return 'source' in match
    ? { source: `! ${match.source}` }
    : { inInterface: `! ${match.inInterface}` };
}

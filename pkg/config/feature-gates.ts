/** The feature gates of Kubernetes that say something to a service proxy. */

export interface FeatureGate {
  /** As kubernetes_feature_enabled tells it; '' = GA. */
  readonly stage: 'ALPHA' | 'BETA' | 'DEPRECATED' | '';
  readonly default: boolean;
  /** What it does here; undefined = accepted, without effect. */
  readonly effect?: string;
}

const ga: FeatureGate = { stage: '', default: true };
const beta: FeatureGate = { stage: 'BETA', default: true };

/** As of Kubernetes 1.36. What is on and GA is how this proxy always behaves. */
export const featureGates: Readonly<Record<string, FeatureGate>> = {
  AllAlpha: { stage: 'ALPHA', default: false },
  AllBeta: { stage: 'BETA', default: false },
  AllowServiceExternalIPs: {
    stage: 'DEPRECATED',
    default: true,
    effect: 'off: externalIPs of Services are not served (KEP-5707)',
  },
  ClientsAllowCBOR: { stage: 'ALPHA', default: false },
  ClientsPreferCBOR: { stage: 'ALPHA', default: false },
  ComponentFlagz: { ...beta, effect: 'off: /flagz does not answer (KEP-4828)' },
  ComponentStatusz: { ...beta, effect: 'off: /statusz does not answer (KEP-4827)' },
  ContextualLogging: beta,
  InformerResourceVersion: { stage: 'ALPHA', default: false },
  IPTablesOwnershipCleanup: ga,
  KubeProxyDrainingTerminatingNodes: ga,
  KubeProxyNFTablesLocalhostNodePorts: { stage: 'ALPHA', default: false },
  LoadBalancerIPMode: ga,
  LoggingAlphaOptions: { stage: 'ALPHA', default: false },
  LoggingBetaOptions: beta,
  MinimizeIPTablesRestore: ga,
  MultiCIDRServiceAllocator: ga,
  NFTablesProxyMode: ga,
  PreferSameTrafficDistribution: ga,
  ProxyTerminatingEndpoints: ga,
  ServiceInternalTrafficPolicy: ga,
  ServiceTrafficDistribution: ga,
  TopologyAwareHints: ga,
  WatchListClient: beta,
};

/**
 * What to tell of the gates in a configuration. kube-proxy refuses names it does not know; it knows
 * those of every component, and we do not, so here such a name is a warning.
 */
export function featureGateWarnings(gates: Readonly<Record<string, boolean>>): string[] {
  return Object.entries(gates).flatMap(([name, enabled]) => {
    const gate = featureGates[name];
    if (gate === undefined) return [`feature gate ${name} is not known here and has no effect`];
    if (gate.effect !== undefined || enabled === gate.default) return [];
    return [`feature gate ${name}=${enabled} has no effect here`];
  });
}

/** Whether a gate is on, given what the configuration says. */
export function isFeatureEnabled(gates: Readonly<Record<string, boolean>>, name: string): boolean {
  return gates[name] ?? featureGates[name]?.default ?? false;
}

/** What is there from the first moment on, as in every cluster. */
import { tryParsePrefix } from '#pkg/ip/prefix.ts';
import { addressPlus, formatAddress } from '#pkg/ip/address.ts';
import { nameOf, type ApiAccess } from './access.ts';
import type { JsonObject } from './json.ts';
import { ipFamily } from './admission/service-allocations.ts';

export interface BootstrapOptions {
  readonly serviceCIDRs: readonly string[];
  /** Where pods reach the API server itself; without it its Service has no endpoints. */
  readonly apiServer: { readonly addresses: readonly string[]; readonly port: number } | undefined;
}

const namespaces = ['default', 'kube-node-lease', 'kube-public', 'kube-system'];

/** Makes what is missing of the objects every cluster has; what is there stays. */
export function bootstrap(access: ApiAccess, options: BootstrapOptions): void {
  for (const name of namespaces) {
    createMissing(access, { apiVersion: 'v1', kind: 'Namespace', metadata: { name } });
  }
  const [first] = options.serviceCIDRs;
  if (first === undefined) return;
  createMissing(access, {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'ServiceCIDR',
    metadata: { name: 'kubernetes' },
    spec: { cidrs: [...options.serviceCIDRs] },
  });
  const { apiServer } = options;
  createMissing(access, kubernetesService(first, apiServer?.port ?? 6443));
  if (apiServer === undefined) return;
  const family = first.includes(':') ? 'ip6' : 'ip';
  const addresses = apiServer.addresses.filter(
    (address) => address.includes(':') === (family === 'ip6'),
  );
  access.apply({
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: 'kubernetes',
      namespace: 'default',
      labels: { 'kubernetes.io/service-name': 'kubernetes' },
    },
    addressType: ipFamily(family),
    endpoints: addresses.map((address) => ({ addresses: [address], conditions: { ready: true } })),
    ports: [{ name: 'https', port: apiServer.port, protocol: 'TCP' }],
  });
}

/** The API server as a Service: the first address of the first range, port 443. */
function kubernetesService(cidr: string, targetPort: number): JsonObject {
  const prefix = tryParsePrefix(cidr);
  const clusterIP = prefix === undefined ? '' : formatAddress(addressPlus(prefix.address, 1));
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: {
      name: 'kubernetes',
      namespace: 'default',
      labels: { component: 'apiserver', provider: 'kubernetes' },
    },
    spec: {
      clusterIP,
      ports: [{ name: 'https', port: 443, protocol: 'TCP', targetPort }],
    },
  };
}

function createMissing(access: ApiAccess, object: JsonObject): void {
  if (access.find(nameOf(object)) === undefined) access.create(object);
}

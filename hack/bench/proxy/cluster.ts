/** What the API server holds: N Services with E endpoints each, and the one that is probed. */
import type { ApiAccess } from '#pkg/embedded-api/access.ts';

/** The probed Service is the last by name, and so in kube-proxy's order the last of its chain. */
export const probed = { namespace: 'zz', name: 'probed', ip: '172.31.255.254', port: 80 };
/** A Service that comes and goes. */
export const passing = { namespace: 'default', name: 'passing', ip: '172.31.255.1', port: 80 };

export interface Target {
  readonly namespace: string;
  readonly name: string;
  readonly ip: string;
  readonly port: number;
}

export function fill(objects: ApiAccess, services: number, endpoints: number): void {
  const namespaces = Array.from({ length: 20 }, (_, n) => `ns-${n}`);
  for (const name of [...namespaces, probed.namespace]) {
    objects.create({ apiVersion: 'v1', kind: 'Namespace', metadata: { name } });
  }
  for (let n = 0; n < services - 1; n++) {
    const ip = `172.${30 + (n >> 16)}.${(n >> 8) & 255}.${n & 255}`;
    const target = { namespace: namespaces[n % 20] ?? '', name: `service-${n}`, ip, port: 80 };
    putService(objects, target);
    const at = n * endpoints;
    putEndpoints(
      objects,
      target,
      Array.from({ length: endpoints }, (_, e) => podAddress(at + e)),
    );
  }
  putService(objects, probed);
}

export function putService(objects: ApiAccess, { ip, name, namespace, port }: Target): void {
  objects.create({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { namespace, name },
    spec: { clusterIP: ip, clusterIPs: [ip], ports: [{ name: 'http', port, targetPort: 8080 }] },
  });
}

export function deleteService(objects: ApiAccess, { name, namespace }: Target): void {
  objects.delete({ apiVersion: 'v1', kind: 'Service', namespace, name });
  const apiVersion = 'discovery.k8s.io/v1';
  objects.delete({ apiVersion, kind: 'EndpointSlice', namespace, name });
}

export function putEndpoints(
  objects: ApiAccess,
  { name, namespace }: Target,
  addresses: readonly string[],
): void {
  objects.apply({
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { namespace, name, labels: { 'kubernetes.io/service-name': name } },
    addressType: 'IPv4',
    ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
    endpoints: addresses.map((address) => ({ addresses: [address], conditions: { ready: true } })),
  });
}

/** Of a pod that is not there; 10.1.0.0/16 are those of the namespaces. */
function podAddress(n: number): string {
  return `10.${64 + (n >> 16)}.${(n >> 8) & 255}.${n & 255}`;
}

/** What the API server holds: N Services with E endpoints each, and the one that is probed. */
import { writeFileSync } from 'node:fs';
import type { ApiAccess } from '#pkg/embedded-api/access.ts';
import type { Family } from '#pkg/ip/address.ts';

export interface Target {
  readonly namespace: string;
  readonly name: string;
  readonly ip: string;
  readonly port: number;
}

/** The cluster's addresses in one family. */
export interface Addressing {
  readonly family: Family;
  /** The probed Service is the last by name, and so in kube-proxy's order the last of its chain. */
  readonly probed: Target;
  /** A Service that comes and goes. */
  readonly passing: Target;
  /** Of the two pods that answer. */
  readonly pods: readonly [string, string];
  readonly serviceCIDR: string;
  readonly service: (n: number) => string;
  /** Of a pod that is not there. */
  readonly pod: (n: number) => string;
}

const probed = { namespace: 'zz', name: 'probed', port: 80 };
const passing = { namespace: 'default', name: 'passing', port: 80 };
const hex = (n: number): string => n.toString(16);

export const addressing: Readonly<Record<Family, Addressing>> = {
  ip: {
    family: 'ip',
    probed: { ...probed, ip: '172.31.255.254' },
    passing: { ...passing, ip: '172.31.255.1' },
    pods: ['10.1.2.2', '10.1.3.2'],
    serviceCIDR: '172.16.0.0/12',
    service: (n) => `172.${30 + (n >> 16)}.${(n >> 8) & 255}.${n & 255}`,
    // 10.1.0.0/16 are those of the namespaces.
    pod: (n) => `10.${64 + (n >> 16)}.${(n >> 8) & 255}.${n & 255}`,
  },
  ip6: {
    family: 'ip6',
    probed: { ...probed, ip: 'fd00:99::f:1' },
    passing: { ...passing, ip: 'fd00:99::f:2' },
    pods: ['fd00:10:2::2', 'fd00:10:3::2'],
    serviceCIDR: 'fd00:99::/108',
    service: (n) => `fd00:99::1:${hex(n)}`,
    pod: (n) => `fd00:11::1:${hex(1 + (n >> 15))}:${hex(1 + (n & 0x7fff))}`,
  },
};

/**
 * Writes the file that the embedded API server starts from: asking it to create 40,000 objects would
 * take longer than what is measured.
 */
export function writeObjects(
  path: string,
  of: Addressing,
  { services, endpoints }: { readonly services: number; readonly endpoints: number },
): void {
  const objects: (readonly [resource: string, object: StoredObject])[] = [];
  const namespaces = Array.from({ length: 20 }, (_, n) => `ns-${n}`);
  for (const name of [...namespaces, of.probed.namespace]) {
    const status = { phase: 'Active' };
    objects.push([
      'namespaces',
      { apiVersion: 'v1', kind: 'Namespace', metadata: { name }, status },
    ]);
  }
  const add = (target: Target, addresses: readonly string[]): void => {
    objects.push(['services', serviceObject(target)]);
    if (addresses.length === 0) return;
    objects.push(['endpointslices.discovery.k8s.io', sliceObject(target, addresses)]);
  };
  for (let n = 0; n < services - 1; n++) {
    const name = `service-${n}`;
    const target = { namespace: namespaces[n % 20] ?? '', name, ip: of.service(n + 1), port: 80 };
    add(target, podsOf(of, n, endpoints));
  }
  add(of.probed, []);
  let revision = 1;
  const lines = [JSON.stringify({ format: 'podwire-embedded-api/1', revision })];
  const creationTimestamp = '2026-01-01T00:00:00Z';
  for (const [resource, { metadata, ...rest }] of objects) {
    revision += 1;
    const own = {
      uid: `00000000-0000-4000-8000-${String(revision).padStart(12, '0')}`,
      creationTimestamp,
    };
    const full = { ...metadata, ...own, resourceVersion: String(revision), generation: 1 };
    lines.push(JSON.stringify({ revision, resource, object: { ...rest, metadata: full } }));
  }
  writeFileSync(path, `${lines.join('\n')}\n`);
}

/** Gives another Service than the probed one other endpoints. */
export function disturb(objects: ApiAccess, of: Addressing, turn: number, services: number): void {
  const n = turn % Math.max(1, services - 1);
  const target = {
    namespace: `ns-${n % 20}`,
    name: `service-${n}`,
    ip: of.service(n + 1),
    port: 80,
  };
  putEndpoints(objects, target, podsOf(of, services + turn, 2));
}

export function putService(objects: ApiAccess, target: Target): void {
  objects.create(serviceObject(target));
}

export function deleteService(objects: ApiAccess, { name, namespace }: Target): void {
  objects.delete({ apiVersion: 'v1', kind: 'Service', namespace, name });
  const apiVersion = 'discovery.k8s.io/v1';
  objects.delete({ apiVersion, kind: 'EndpointSlice', namespace, name });
}

export function putEndpoints(
  objects: ApiAccess,
  target: Target,
  addresses: readonly string[],
): void {
  objects.apply(sliceObject(target, addresses));
}

interface StoredObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly [field: string]: unknown;
}

function podsOf(of: Addressing, n: number, endpoints: number): string[] {
  return Array.from({ length: endpoints }, (_, e) => of.pod(n * endpoints + e));
}

function serviceObject({ ip, name, namespace, port }: Target) {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { namespace, name },
    spec: {
      type: 'ClusterIP',
      clusterIP: ip,
      clusterIPs: [ip],
      ipFamilies: [ip.includes(':') ? 'IPv6' : 'IPv4'],
      ipFamilyPolicy: 'SingleStack',
      internalTrafficPolicy: 'Cluster',
      sessionAffinity: 'None',
      ports: [{ name: 'http', protocol: 'TCP', port, targetPort: 8080 }],
    },
  };
}

function sliceObject({ ip, name, namespace }: Target, addresses: readonly string[]) {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { namespace, name, labels: { 'kubernetes.io/service-name': name } },
    addressType: ip.includes(':') ? 'IPv6' : 'IPv4',
    ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
    endpoints: addresses.map((address) => ({ addresses: [address], conditions: { ready: true } })),
  };
}

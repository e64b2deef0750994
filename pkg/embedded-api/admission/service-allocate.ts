/** Families, cluster addresses and node ports of a Service (registry/core/service/storage/alloc.go). */
import { formatAddress, parseAddress, tryParseAddress } from '#pkg/ip/address.ts';
import { formatPrefix } from '#pkg/ip/prefix.ts';
import type { FieldError } from '#pkg/embedded-api/api-error.ts';
import { listAt, objectAt, textAt, valueAt, type JsonObject } from '#pkg/embedded-api/json.ts';
import type { AdmissionContext } from '#pkg/embedded-api/kind-rules.ts';
import { keyOf, type KubeObject } from '#pkg/embedded-api/object.ts';
import { invalidValue, required } from './field-errors.ts';
import {
  ipFamilyOf,
  isInRange,
  nodePortRange,
  type IpFamily,
  type ServiceAllocations,
} from './service-allocations.ts';

/** What is being handed out to: the Service's key, and the ranges. */
interface Claim {
  readonly owner: string;
  readonly allocations: ServiceAllocations;
  readonly errors: FieldError[];
}

/** The Service with families, addresses and node ports filled in, or what cannot be given. */
export function allocateService(
  service: KubeObject,
  _old: KubeObject | undefined,
  { allocations }: AdmissionContext,
): KubeObject | readonly FieldError[] {
  const claim: Claim = { owner: keyOf(service), allocations, errors: [] };
  const spec = objectAt(service, 'spec');
  const addressed = textAt(spec, 'type') === 'ExternalName' ? spec : withAddresses(spec, claim);
  const complete = withNodePorts(addressed, claim);
  return claim.errors.length > 0 ? claim.errors : { ...service, spec: complete };
}

function withAddresses(spec: JsonObject, claim: Claim): JsonObject {
  const families = chooseFamilies(spec, claim);
  if (claim.errors.length > 0) return spec;
  const policy = textAt(spec, 'ipFamilyPolicy') || defaultPolicy(spec);
  const familied = { ...spec, ipFamilies: families, ipFamilyPolicy: policy };
  if (textAt(spec, 'clusterIP') === 'None') return familied;
  const given = listAt(spec, 'clusterIPs').map((address) => textAt(address));
  const addresses = families.map((family, i) => claimAddress(family, given[i] ?? '', i, claim));
  return { ...familied, clusterIP: addresses[0], clusterIPs: addresses };
}

function isSelectorlessHeadless(spec: JsonObject): boolean {
  const hasSelector = Object.keys(objectAt(spec, 'selector')).length > 0;
  return textAt(spec, 'clusterIP') === 'None' && !hasSelector;
}

/** Endpoints a user writes by hand may be of any family. */
function defaultPolicy(spec: JsonObject): string {
  return isSelectorlessHeadless(spec) ? 'RequireDualStack' : 'SingleStack';
}

function chooseFamilies(spec: JsonObject, claim: Claim): readonly IpFamily[] {
  const policy = textAt(spec, 'ipFamilyPolicy') || defaultPolicy(spec);
  const addresses = listAt(spec, 'clusterIPs').map((address) => textAt(address));
  const named = listAt(spec, 'ipFamilies').map((family) => textAt(family)) as IpFamily[];
  const implied = addresses.map(ipFamilyOf).filter((family) => family !== undefined);
  checkFamilies({ policy, named, implied, spec }, claim);
  const families =
    named.length >= implied.length ? named : [...named, ...implied.slice(named.length)];
  const configured = claim.allocations.families;
  const fallback: IpFamily[] = families.length > 0 ? families : [configured[0] ?? 'IPv4'];
  const canBeDual = configured.length > 1 || isSelectorlessHeadless(spec);
  if (policy === 'SingleStack' || fallback.length > 1 || !canBeDual) return fallback;
  return [...fallback, fallback[0] === 'IPv4' ? 'IPv6' : 'IPv4'];
}

interface FamilyWish {
  readonly policy: string;
  readonly named: readonly IpFamily[];
  readonly implied: readonly IpFamily[];
  readonly spec: JsonObject;
}

function checkFamilies({ policy, named, implied, spec }: FamilyWish, claim: Claim): void {
  const { errors, allocations } = claim;
  const configured = allocations.families;
  const dualOnly = 'must be RequireDualStack or PreferDualStack when multiple';
  if (policy === 'SingleStack' && named.length > 1) {
    errors.push(
      invalidValue('spec.ipFamilyPolicy', policy, `${dualOnly} ipFamilies are specified`),
    );
  } else if (policy === 'SingleStack' && implied.length > 1) {
    errors.push(
      invalidValue('spec.ipFamilyPolicy', policy, `${dualOnly} clusterIPs are specified`),
    );
  }
  if (named.length === 2 && named[0] === named[1]) {
    errors.push({ ...invalidValue('spec.ipFamilies', [...named], 'the families must differ') });
  }
  for (const [i, family] of implied.entries()) {
    if (named[i] === undefined || named[i] === family) continue;
    const detail = `expected an ${named[i]} value as indicated by \`ipFamilies[${i}]\``;
    errors.push(
      invalidValue(`spec.clusterIPs[${i}]`, textAt(listAt(spec, 'clusterIPs')[i]), detail),
    );
  }
  if (isSelectorlessHeadless(spec) || configured.length === 0) return;
  if (policy === 'RequireDualStack' && configured.length < 2) {
    const detail = 'this cluster is not configured for dual-stack services';
    errors.push(invalidValue('spec.ipFamilyPolicy', policy, detail));
  }
  for (const [i, family] of named.entries()) {
    if (configured.includes(family)) continue;
    errors.push(invalidValue(`spec.ipFamilies[${i}]`, family, 'not configured on this cluster'));
  }
}

function claimAddress(family: IpFamily, given: string, index: number, claim: Claim): string {
  const { allocations, errors, owner } = claim;
  const field = `spec.clusterIPs[${index}]`;
  const range = allocations.range(family);
  if (given === '') {
    if (range === undefined) {
      errors.push(required('spec.clusterIPs', `this server has no ${family} service range`));
      return '';
    }
    const free = allocations.freeAddress(family);
    if (free === undefined) {
      errors.push(
        invalidValue(
          field,
          given,
          `failed to allocate an IP: range ${formatPrefix(range)} is full`,
        ),
      );
    }
    return free ?? '';
  }
  const parsed = tryParseAddress(given);
  if (parsed === undefined) return given;
  const holder = allocations.addressOwner(formatAddress(parseAddress(given)));
  if (holder === owner) return given;
  const failed = `failed to allocate IP ${given}`;
  if (range !== undefined && !isInRange(range, given)) {
    const detail = `${failed}: the provided network does not match the current range: the range of valid IPs is ${formatPrefix(range)}`;
    errors.push(invalidValue(field, given, detail));
  } else if (holder !== undefined) {
    errors.push(invalidValue(field, given, `${failed}: provided IP is already allocated`));
  }
  return given;
}

function withNodePorts(spec: JsonObject, claim: Claim): JsonObject {
  const type = textAt(spec, 'type');
  const wantsPorts =
    type === 'NodePort' ||
    (type === 'LoadBalancer' && valueAt(spec, 'allocateLoadBalancerNodePorts') !== false);
  const ports = listAt(spec, 'ports').map((port) => objectAt(port));
  const taken = new Map<number, Set<string>>();
  const chosen = ports.map((port, i) => {
    const given = Number(port['nodePort'] ?? 0);
    if (given === 0) return 0;
    checkNodePort(given, `spec.ports[${i}].nodePort`, claim);
    const protocols = taken.get(given) ?? new Set<string>();
    if (protocols.has(textAt(port, 'protocol'))) {
      claim.errors.push(
        invalidValue(`spec.ports[${i}].nodePort`, given, 'provided port is already allocated'),
      );
    }
    taken.set(given, protocols.add(textAt(port, 'protocol')));
    return given;
  });
  const withPorts = ports.map((port, i) => {
    if (chosen[i] !== 0 || !wantsPorts) return port;
    return { ...port, nodePort: freePort(`spec.ports[${i}].nodePort`, taken, claim) };
  });
  const complete = spec['ports'] === undefined ? spec : { ...spec, ports: withPorts };
  return withHealthPort(complete, taken, claim);
}

function withHealthPort(
  spec: JsonObject,
  taken: Map<number, Set<string>>,
  claim: Claim,
): JsonObject {
  const wants =
    textAt(spec, 'type') === 'LoadBalancer' && textAt(spec, 'externalTrafficPolicy') === 'Local';
  const given = Number(spec['healthCheckNodePort'] ?? 0);
  if (!wants) return spec;
  const field = 'spec.healthCheckNodePort';
  if (given !== 0) {
    checkNodePort(given, field, claim);
    return spec;
  }
  return { ...spec, healthCheckNodePort: freePort(field, taken, claim) };
}

function checkNodePort(port: number, field: string, { allocations, errors, owner }: Claim): void {
  const { first, last } = nodePortRange;
  if (port < first || port > last) {
    const detail = `provided port is not in the valid range. The range of valid ports is ${first}-${last}`;
    errors.push(invalidValue(field, port, detail));
    return;
  }
  const holder = allocations.portOwner(port);
  if (holder !== undefined && holder !== owner) {
    errors.push(invalidValue(field, port, 'provided port is already allocated'));
  }
}

function freePort(field: string, taken: Map<number, Set<string>>, claim: Claim): number {
  const port = claim.allocations.freePort(new Set(taken.keys()));
  if (port === undefined) {
    claim.errors.push(invalidValue(field, 0, 'failed to allocate a nodePort: range is full'));
    return 0;
  }
  taken.set(port, new Set());
  return port;
}

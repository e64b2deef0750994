/** Services: their schema and what must hold between their fields (core/v1 validation). */
import * as z from 'zod';
import { tryParseAddress } from '#pkg/ip/address.ts';
import type { FieldError } from '#pkg/embedded-api/api-error.ts';
import { listAt, sameJson, textAt, valueAt } from '#pkg/embedded-api/json.ts';
import type { KindRules } from '#pkg/embedded-api/kind-rules.ts';
import type { KubeObject } from '#pkg/embedded-api/object.ts';
import { forbiddenField, invalidValue, required } from './field-errors.ts';
import { schemaErrors } from './schema-check.ts';
import {
  cidr,
  dns1035Label,
  dnsLabel,
  dnsSubdomain,
  ipAddress,
  labelMap,
  objectMeta,
  portNumber,
  portNumberOrName,
  protocol,
} from './schema-parts.ts';
import { allocateService } from './service-allocate.ts';
import { withServiceDefaults } from './service-defaults.ts';

const trafficPolicy = z.enum(['Cluster', 'Local']);
const clusterIP = z.union(
  [z.literal('None'), z.literal(''), ipAddress],
  'must be a valid IP address',
);
const affinitySecondsText = 'must be greater than 0 and less than or equal to 86400';

const servicePort = z.looseObject({
  name: dnsLabel.optional(),
  protocol,
  appProtocol: z.string().optional(),
  port: portNumber,
  targetPort: portNumberOrName.optional(),
  nodePort: z.int().optional(),
});

/** `v1.Service`. */
export const serviceSchema = z.looseObject({
  metadata: objectMeta.extend({ name: dns1035Label }),
  spec: z.looseObject({
    type: z.enum(['ClusterIP', 'ExternalName', 'LoadBalancer', 'NodePort']),
    selector: labelMap.optional(),
    ports: z.array(servicePort).optional(),
    clusterIP: z.string().optional(),
    clusterIPs: z.array(clusterIP).max(2, 'may only hold up to 2 values').optional(),
    ipFamilies: z
      .array(z.enum(['IPv4', 'IPv6']))
      .max(2, 'may only hold up to 2 values')
      .optional(),
    ipFamilyPolicy: z.enum(['SingleStack', 'PreferDualStack', 'RequireDualStack']).optional(),
    externalIPs: z.array(ipAddress).optional(),
    externalName: dnsSubdomain.optional(),
    sessionAffinity: z.enum(['ClientIP', 'None']),
    sessionAffinityConfig: z
      .looseObject({
        clientIP: z
          .looseObject({
            timeoutSeconds: z
              .int()
              .min(1, affinitySecondsText)
              .max(86400, affinitySecondsText)
              .optional(),
          })
          .optional(),
      })
      .optional(),
    internalTrafficPolicy: trafficPolicy.optional(),
    externalTrafficPolicy: trafficPolicy.optional(),
    loadBalancerIP: z.string().optional(),
    loadBalancerClass: z.string().optional(),
    loadBalancerSourceRanges: z.array(cidr).optional(),
    allocateLoadBalancerNodePorts: z.boolean().optional(),
    healthCheckNodePort: z.int().optional(),
    publishNotReadyAddresses: z.boolean().optional(),
    trafficDistribution: z.string().optional(),
  }),
  status: z
    .looseObject({
      loadBalancer: z
        .looseObject({
          ingress: z
            .array(
              z.looseObject({
                ip: ipAddress.optional(),
                hostname: z.string().optional(),
                ipMode: z.enum(['Proxy', 'VIP']).optional(),
              }),
            )
            .optional(),
        })
        .optional(),
    })
    .optional(),
});

export const serviceRules: KindRules = {
  withDefaults: withServiceDefaults,
  validate: (service, old) => {
    const errors = schemaErrors(serviceSchema, service);
    return errors.length > 0 ? errors : relationErrors(service, old);
  },
  allocate: allocateService,
};

function relationErrors(service: KubeObject, old: KubeObject | undefined): readonly FieldError[] {
  return [
    ...portErrors(service),
    ...typeErrors(service),
    ...clusterAddressErrors(service, old),
    ...externalErrors(service),
  ];
}

function portErrors(service: KubeObject): readonly FieldError[] {
  const ports = listAt(service, 'spec', 'ports');
  const isPortless =
    textAt(service, 'spec', 'type') === 'ExternalName' ||
    textAt(service, 'spec', 'clusterIP') === 'None';
  if (ports.length === 0) return isPortless ? [] : [required('spec.ports')];
  const errors: FieldError[] = [];
  const names = new Set<string>();
  const numbers = new Set<string>();
  for (const [i, port] of ports.entries()) {
    const name = textAt(port, 'name');
    if (name === '' && ports.length > 1) errors.push(required(`spec.ports[${i}].name`));
    if (name !== '' && names.has(name)) errors.push(duplicateAt(`spec.ports[${i}].name`, name));
    names.add(name);
    const number = `${textAt(port, 'protocol')}/${textAt(port, 'port')}`;
    if (numbers.has(number)) errors.push(duplicateAt(`spec.ports[${i}]`, number));
    numbers.add(number);
  }
  return errors;
}

function duplicateAt(field: string, value: string): FieldError {
  return {
    field,
    reason: 'FieldValueDuplicate',
    message: `Duplicate value: ${JSON.stringify(value)}`,
  };
}

function typeErrors(service: KubeObject): readonly FieldError[] {
  const errors: FieldError[] = [];
  const type = textAt(service, 'spec', 'type');
  const isExternal = type === 'NodePort' || type === 'LoadBalancer';
  if (type === 'ExternalName' && textAt(service, 'spec', 'externalName') === '') {
    errors.push(required('spec.externalName'));
  }
  if (isExternal && textAt(service, 'spec', 'clusterIP') === 'None') {
    const detail = "may not be set to 'None' for NodePort and LoadBalancer services";
    errors.push(invalidValue('spec.clusterIPs[0]', 'None', detail));
  }
  for (const [i, port] of listAt(service, 'spec', 'ports').entries()) {
    if (!isExternal && Number(valueAt(port, 'nodePort') ?? 0) !== 0) {
      const field = `spec.ports[${i}].nodePort`;
      errors.push(forbiddenField(field, "may not be used when `type` is 'ClusterIP'"));
    }
  }
  const hasExternalIPs = listAt(service, 'spec', 'externalIPs').length > 0;
  const policy = valueAt(service, 'spec', 'externalTrafficPolicy');
  if (policy !== undefined && !isExternal && !hasExternalIPs) {
    const detail = 'may only be set for externally-accessible services';
    errors.push(invalidValue('spec.externalTrafficPolicy', policy, detail));
  }
  return errors;
}

function clusterAddressErrors(
  service: KubeObject,
  old: KubeObject | undefined,
): readonly FieldError[] {
  const type = textAt(service, 'spec', 'type');
  const addresses = listAt(service, 'spec', 'clusterIPs');
  if (type === 'ExternalName') {
    return addresses.some((address) => address !== '')
      ? [forbiddenField('spec.clusterIPs', "may not be set when `type` is 'ExternalName'")]
      : [];
  }
  const errors: FieldError[] = [];
  if (addresses.includes('None') && addresses.length > 1) {
    const detail = "'None' must be the only value when specified";
    errors.push(invalidValue('spec.clusterIPs', addresses, detail));
  }
  const first = textAt(service, 'spec', 'clusterIP');
  if (addresses.length > 0 && textAt(addresses[0]) !== first) {
    errors.push(invalidValue('spec.clusterIPs', addresses, 'first value must match `clusterIP`'));
  }
  const before = listAt(old, 'spec', 'clusterIPs');
  if (old !== undefined && textAt(old, 'spec', 'type') !== 'ExternalName') {
    for (const [i, address] of before.entries()) {
      const isDropped = i > 0 && addresses.length <= i;
      if (address !== '' && !isDropped && !sameJson(address, addresses[i])) {
        const detail = i === 0 ? 'primary clusterIP can not be unset' : 'may not change once set';
        errors.push(
          invalidValue(`spec.clusterIPs[${i}]`, addresses[i], `field is immutable: ${detail}`),
        );
      }
    }
  }
  return errors;
}

function externalErrors(service: KubeObject): readonly FieldError[] {
  return listAt(service, 'spec', 'externalIPs').flatMap((address, i) => {
    const parsed = tryParseAddress(textAt(address));
    if (parsed === undefined || !isNeverExternal(parsed.family, parsed.value)) return [];
    const detail = 'may not be unspecified, loopback or link-local';
    return [invalidValue(`spec.externalIPs[${i}]`, address, detail)];
  });
}

function isNeverExternal(family: 'ip' | 'ip6', value: bigint): boolean {
  if (value === 0n) return true;
  if (family === 'ip6') return value === 1n || value >> 118n === 0xfe80n >> 6n;
  return value >> 24n === 127n || value >> 16n === 0xa9fen || value >> 8n === 0xe00000n;
}

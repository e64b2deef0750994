/** EndpointSlices (discovery/v1 validation). */
import * as z from 'zod';
import type { FieldError } from '#pkg/embedded-api/api-error.ts';
import { listAt, sameJson, textAt } from '#pkg/embedded-api/json.ts';
import type { KindRules } from '#pkg/embedded-api/kind-rules.ts';
import type { KubeObject } from '#pkg/embedded-api/object.ts';
import { eachObject, withAbsent } from './defaults.ts';
import { duplicate, invalidValue } from './field-errors.ts';
import { schemaErrors } from './schema-check.ts';
import { ipFamilyOf } from './service-allocations.ts';
import { dnsLabel, dnsSubdomain, objectMeta, portNumber, protocol } from './schema-parts.ts';

const hints = z.array(z.looseObject({ name: z.string().min(1) })).max(8);

/** `discovery.k8s.io/v1.EndpointSlice`. */
export const endpointSliceSchema = z.looseObject({
  metadata: objectMeta.extend({ name: dnsSubdomain }),
  addressType: z.enum(['FQDN', 'IPv4', 'IPv6']),
  endpoints: z
    .array(
      z.looseObject({
        addresses: z
          .array(z.string())
          .min(1, 'must contain at least 1 address')
          .max(100, 'must have at most 100 items'),
        conditions: z
          .looseObject({
            ready: z.boolean().optional(),
            serving: z.boolean().optional(),
            terminating: z.boolean().optional(),
          })
          .optional(),
        hostname: dnsLabel.optional(),
        nodeName: dnsSubdomain.optional(),
        zone: z.string().optional(),
        hints: z.looseObject({ forZones: hints.optional(), forNodes: hints.optional() }).optional(),
      }),
    )
    .max(1000, 'must have at most 1000 items')
    .optional(),
  ports: z
    .array(
      z.looseObject({
        name: z.union([z.literal(''), dnsLabel]).optional(),
        protocol: protocol.optional(),
        port: portNumber.optional(),
        appProtocol: z.string().optional(),
      }),
    )
    .max(20000, 'must have at most 20000 items')
    .optional(),
});

export const endpointSliceRules: KindRules = {
  withDefaults: (slice) => {
    if (slice['ports'] === undefined) return slice;
    const ports = eachObject(listAt(slice, 'ports'), (port) =>
      withAbsent(port, { name: '', protocol: 'TCP' }),
    );
    return { ...slice, ports };
  },
  validate: (slice, old) => {
    const errors = schemaErrors(endpointSliceSchema, slice);
    return errors.length > 0 ? errors : relationErrors(slice, old);
  },
};

function relationErrors(slice: KubeObject, old: KubeObject | undefined): readonly FieldError[] {
  const type = textAt(slice, 'addressType');
  const errors: FieldError[] = [];
  if (old !== undefined && !sameJson(old['addressType'], slice['addressType'])) {
    errors.push(invalidValue('addressType', type, 'field is immutable'));
  }
  const names = new Set<string>();
  for (const [i, port] of listAt(slice, 'ports').entries()) {
    const name = textAt(port, 'name');
    if (names.has(name)) errors.push(duplicate(`ports[${i}].name`, name));
    names.add(name);
  }
  if (type === 'FQDN') return errors;
  for (const [i, endpoint] of listAt(slice, 'endpoints').entries()) {
    for (const [j, address] of listAt(endpoint, 'addresses').entries()) {
      if (ipFamilyOf(textAt(address)) === type) continue;
      const detail = `must be an ${type} address`;
      errors.push(invalidValue(`endpoints[${i}].addresses[${j}]`, address, detail));
    }
  }
  return errors;
}

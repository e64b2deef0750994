/** Nodes: podCIDR and podCIDRs say the same and are set once (core/v1 validation). */
import * as z from 'zod';
import { tryParsePrefix } from '#pkg/ip/prefix.ts';
import type { FieldError } from '#pkg/embedded-api/api-error.ts';
import { listAt, objectAt, sameJson, textAt } from '#pkg/embedded-api/json.ts';
import type { KindRules } from '#pkg/embedded-api/kind-rules.ts';
import type { KubeObject } from '#pkg/embedded-api/object.ts';
import { forbiddenField, invalidValue } from './field-errors.ts';
import { schemaErrors } from './schema-check.ts';
import { dnsSubdomain, labelKey, labelValue, networkCidr, objectMeta } from './schema-parts.ts';

/** `v1.Node`, as far as a network agent reads it. */
export const nodeSchema = z.looseObject({
  metadata: objectMeta.extend({ name: dnsSubdomain }),
  spec: z
    .looseObject({
      podCIDR: networkCidr.optional(),
      podCIDRs: z
        .array(networkCidr)
        .max(2, 'may specify no more than one CIDR for each IP family')
        .optional(),
      providerID: z.string().optional(),
      unschedulable: z.boolean().optional(),
      taints: z
        .array(
          z.looseObject({
            key: labelKey,
            value: labelValue.optional(),
            effect: z.enum(['NoExecute', 'NoSchedule', 'PreferNoSchedule']),
          }),
        )
        .optional(),
    })
    .optional(),
  status: z
    .looseObject({
      addresses: z
        .array(
          z.looseObject({
            type: z.enum(['ExternalDNS', 'ExternalIP', 'Hostname', 'InternalDNS', 'InternalIP']),
            address: z.string(),
          }),
        )
        .optional(),
      conditions: z
        .array(z.looseObject({ type: z.string(), status: z.enum(['False', 'True', 'Unknown']) }))
        .optional(),
    })
    .optional(),
});

export const nodeRules: KindRules = {
  withDefaults: (node) => {
    const spec = objectAt(node, 'spec');
    const list = listAt(spec, 'podCIDRs');
    const single = textAt(spec, 'podCIDR');
    if (list.length === 0 && single !== '') {
      return { ...node, spec: { ...spec, podCIDRs: [single] } };
    }
    return list.length > 0 && single === ''
      ? { ...node, spec: { ...spec, podCIDR: textAt(list[0]) } }
      : { ...node, spec };
  },
  validate: (node, old) => {
    const errors = schemaErrors(nodeSchema, node);
    return errors.length > 0 ? errors : podCidrErrors(node, old);
  },
};

function podCidrErrors(node: KubeObject, old: KubeObject | undefined): readonly FieldError[] {
  const list = listAt(node, 'spec', 'podCIDRs');
  const errors: FieldError[] = [];
  if (list.length > 0 && textAt(list[0]) !== textAt(node, 'spec', 'podCIDR')) {
    errors.push(invalidValue('spec.podCIDRs[0]', list[0], 'must match `podCIDR`'));
  }
  const families = list.map((text) => tryParsePrefix(textAt(text))?.address.family);
  if (families.length === 2 && families[0] === families[1]) {
    errors.push(
      invalidValue('spec.podCIDRs', list, 'may specify no more than one CIDR for each IP family'),
    );
  }
  const before = listAt(old, 'spec', 'podCIDRs');
  if (before.length > 0 && !sameJson(before, list)) {
    errors.push(
      forbiddenField('spec.podCIDRs', 'node updates may not change podCIDR once it is set'),
    );
  }
  return errors;
}

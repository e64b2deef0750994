/** Namespaces, Leases, Events, ConfigMaps, ServiceCIDRs: kinds with little to check. */
import * as z from 'zod';
import { isJsonObject, objectAt } from '#pkg/embedded-api/json.ts';
import type { KindRules } from '#pkg/embedded-api/kind-rules.ts';
import { withAbsent } from './defaults.ts';
import { schemaErrors } from './schema-check.ts';
import { dnsLabel, dnsSubdomain, networkCidr, objectMeta } from './schema-parts.ts';

const metadata = objectMeta.extend({ name: dnsSubdomain });

/** `v1.Namespace`. */
export const namespaceSchema = z.looseObject({
  metadata: objectMeta.extend({ name: dnsLabel }),
});

/** Every Namespace carries its name as a label, for selectors (KEP-2161). */
const nameLabel = 'kubernetes.io/metadata.name';

export const namespaceRules: KindRules = {
  withDefaults: (namespace) => {
    const { metadata: meta } = namespace;
    const labels = isJsonObject(meta.labels) ? meta.labels : {};
    const phase = meta.deletionTimestamp === undefined ? 'Active' : 'Terminating';
    return {
      ...namespace,
      metadata: { ...meta, labels: { ...labels, [nameLabel]: meta.name } },
      spec: withAbsent(objectAt(namespace, 'spec'), { finalizers: ['kubernetes'] }),
      status: { ...objectAt(namespace, 'status'), phase },
    };
  },
  validate: (namespace) => schemaErrors(namespaceSchema, namespace),
};

/** `coordination.k8s.io/v1.Lease`. */
export const leaseSchema = z.looseObject({
  metadata,
  spec: z
    .looseObject({
      holderIdentity: z.string().optional(),
      leaseDurationSeconds: z.int().min(1, 'must be greater than 0').optional(),
      leaseTransitions: z.int().min(0, 'must be greater than or equal to 0').optional(),
      acquireTime: z.string().optional(),
      renewTime: z.string().optional(),
    })
    .optional(),
});

export const leaseRules: KindRules = { validate: (lease) => schemaErrors(leaseSchema, lease) };

/** `v1.Event`. */
export const eventSchema = z.looseObject({
  metadata,
  involvedObject: z.looseObject({
    kind: z.string().optional(),
    namespace: z.string().optional(),
    name: z.string().optional(),
  }),
  reason: z.string().optional(),
  message: z.string().optional(),
  type: z.string().optional(),
  count: z.int().optional(),
});

export const eventRules: KindRules = { validate: (event) => schemaErrors(eventSchema, event) };

/** `v1.ConfigMap`. */
export const configMapSchema = z.looseObject({
  metadata,
  data: z.record(z.string(), z.string()).optional(),
  binaryData: z.record(z.string(), z.base64()).optional(),
  immutable: z.boolean().optional(),
});

export const configMapRules: KindRules = {
  validate: (configMap) => schemaErrors(configMapSchema, configMap),
};

/** `networking.k8s.io/v1.ServiceCIDR`. */
export const serviceCidrSchema = z.looseObject({
  metadata,
  spec: z.looseObject({
    cidrs: z
      .array(networkCidr)
      .min(1, 'must have at least one CIDR')
      .max(2, 'may only hold up to 2 values'),
  }),
});

export const serviceCidrRules: KindRules = {
  validate: (serviceCidr) => schemaErrors(serviceCidrSchema, serviceCidr),
};

/** Kinds that came with a CustomResourceDefinition: only their metadata is checked. */
export const customRules: KindRules = {
  validate: (object) => schemaErrors(z.looseObject({ metadata }), object),
};

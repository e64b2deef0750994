/** The kinds served without a CustomResourceDefinition, with the rules for each. */
import * as z from 'zod';
import { endpointSliceRules, endpointSliceSchema } from './admission/endpoint-slice.ts';
import { networkPolicyRules, networkPolicySchema } from './admission/network-policy.ts';
import { nodeRules, nodeSchema } from './admission/node.ts';
import { podRules, podSchema } from './admission/pod.ts';
import { serviceRules, serviceSchema } from './admission/service.ts';
import {
  configMapRules,
  configMapSchema,
  customRules,
  eventRules,
  eventSchema,
  leaseRules,
  leaseSchema,
  namespaceRules,
  namespaceSchema,
  serviceCidrRules,
  serviceCidrSchema,
} from './admission/simple-kinds.ts';
import * as columns from './builtin-columns.ts';
import { definitionRules, definitionSchema } from './custom-kinds.ts';
import type { JsonObject } from './json.ts';
import type { KindRules } from './kind-rules.ts';
import { resourceOf, type KindInfo } from './kinds.ts';

interface BuiltinKind {
  readonly info: KindInfo;
  readonly rules: KindRules;
}

type Declared = Pick<KindInfo, 'kind' | 'plural'> &
  Partial<KindInfo> & { readonly rules: KindRules; readonly zod: z.ZodType };

const builtinKinds: readonly BuiltinKind[] = [
  declare({
    kind: 'Namespace',
    plural: 'namespaces',
    shortNames: ['ns'],
    namespaced: false,
    hasStatus: true,
    selectableFields: ['status.phase'],
    columns: columns.namespaceColumns,
    rules: namespaceRules,
    zod: namespaceSchema,
  }),
  declare({
    kind: 'Node',
    plural: 'nodes',
    shortNames: ['no'],
    namespaced: false,
    hasStatus: true,
    selectableFields: ['spec.unschedulable'],
    columns: columns.nodeColumns,
    rules: nodeRules,
    zod: nodeSchema,
  }),
  declare({
    kind: 'Pod',
    plural: 'pods',
    shortNames: ['po'],
    hasStatus: true,
    selectableFields: [
      'spec.nodeName',
      'spec.restartPolicy',
      'spec.schedulerName',
      'spec.serviceAccountName',
      'spec.hostNetwork',
      'status.phase',
      'status.podIP',
      'status.nominatedNodeName',
    ],
    columns: columns.podColumns,
    rules: podRules,
    zod: podSchema,
  }),
  declare({
    kind: 'Service',
    plural: 'services',
    shortNames: ['svc'],
    hasStatus: true,
    selectableFields: ['spec.clusterIP', 'spec.type'],
    columns: columns.serviceColumns,
    rules: serviceRules,
    zod: serviceSchema,
  }),
  declare({
    kind: 'ConfigMap',
    plural: 'configmaps',
    shortNames: ['cm'],
    columns: columns.configMapColumns,
    rules: configMapRules,
    zod: configMapSchema,
  }),
  declare({
    kind: 'Event',
    plural: 'events',
    shortNames: ['ev'],
    selectableFields: [
      'involvedObject.kind',
      'involvedObject.namespace',
      'involvedObject.name',
      'involvedObject.uid',
      'involvedObject.apiVersion',
      'involvedObject.resourceVersion',
      'involvedObject.fieldPath',
      'reason',
      'reportingComponent',
      'source',
      'type',
    ],
    columns: columns.eventColumns,
    rules: eventRules,
    zod: eventSchema,
  }),
  declare({
    group: 'discovery.k8s.io',
    kind: 'EndpointSlice',
    plural: 'endpointslices',
    columns: columns.endpointSliceColumns,
    rules: endpointSliceRules,
    zod: endpointSliceSchema,
  }),
  declare({
    group: 'networking.k8s.io',
    kind: 'NetworkPolicy',
    plural: 'networkpolicies',
    shortNames: ['netpol'],
    columns: columns.networkPolicyColumns,
    rules: networkPolicyRules,
    zod: networkPolicySchema,
  }),
  declare({
    group: 'networking.k8s.io',
    kind: 'ServiceCIDR',
    plural: 'servicecidrs',
    namespaced: false,
    hasStatus: true,
    columns: columns.serviceCidrColumns,
    rules: serviceCidrRules,
    zod: serviceCidrSchema,
  }),
  declare({
    group: 'coordination.k8s.io',
    kind: 'Lease',
    plural: 'leases',
    columns: columns.leaseColumns,
    rules: leaseRules,
    zod: leaseSchema,
  }),
  declare({
    group: 'apiextensions.k8s.io',
    kind: 'CustomResourceDefinition',
    plural: 'customresourcedefinitions',
    shortNames: ['crd', 'crds'],
    namespaced: false,
    hasStatus: true,
    columns: columns.definitionColumns,
    rules: definitionRules,
    zod: definitionSchema,
  }),
];

/** The built-in kinds. */
export const builtinKindInfos: readonly KindInfo[] = builtinKinds.map(({ info }) => info);

const rulesByResource: ReadonlyMap<string, KindRules> = new Map(
  builtinKinds.map(({ info, rules }) => [resourceOf(info), rules]),
);

/** The rules of a kind; those of custom kinds are all the same. */
export function rulesOf(kind: KindInfo): KindRules {
  return rulesByResource.get(resourceOf(kind)) ?? customRules;
}

function declare({ rules, zod, ...info }: Declared): BuiltinKind {
  return {
    info: {
      group: '',
      version: 'v1',
      singular: info.kind.toLowerCase(),
      shortNames: [],
      namespaced: true,
      hasStatus: false,
      custom: false,
      selectableFields: [],
      columns: [],
      // Computed when asked for: `kubectl explain` is rare and start-up should be quick.
      get schema(): JsonObject {
        return z.toJSONSchema(zod, { target: 'openapi-3.0', unrepresentable: 'any' }) as JsonObject;
      },
      ...info,
    },
    rules,
  };
}

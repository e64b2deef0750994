/** CustomResourceDefinitions: kinds declared as data (apiextensions.k8s.io/v1). */
import * as z from 'zod';
import { schemaErrors } from './admission/schema-check.ts';
import { dns1035Label, dnsSubdomain, objectMeta } from './admission/schema-parts.ts';
import { invalidValue } from './admission/field-errors.ts';
import type { FieldError } from './api-error.ts';
import { isJsonObject, listAt, objectAt, textAt, valueAt, type Json } from './json.ts';
import type { KindInfo } from './kinds.ts';
import type { KindRules } from './kind-rules.ts';
import type { KubeObject } from './object.ts';
import type { Column } from './table.ts';

/** `apiextensions.k8s.io/v1.CustomResourceDefinition`. */
export const definitionSchema = z.looseObject({
  metadata: objectMeta.extend({ name: dnsSubdomain }),
  spec: z.looseObject({
    group: dnsSubdomain,
    scope: z.enum(['Cluster', 'Namespaced']),
    names: z.looseObject({
      plural: dns1035Label,
      singular: dns1035Label.optional(),
      kind: z.string().min(1),
      listKind: z.string().optional(),
      shortNames: z.array(dns1035Label).optional(),
    }),
    versions: z
      .array(
        z.looseObject({
          name: dns1035Label,
          served: z.boolean(),
          storage: z.boolean(),
          schema: z.looseObject({ openAPIV3Schema: z.looseObject({}).optional() }).optional(),
          subresources: z.looseObject({ status: z.looseObject({}).optional() }).optional(),
          additionalPrinterColumns: z
            .array(z.looseObject({ name: z.string(), type: z.string(), jsonPath: z.string() }))
            .optional(),
        }),
      )
      .min(1, 'must have at least one version'),
  }),
});

export const definitionRules: KindRules = {
  withDefaults: (definition) => {
    const names = objectAt(definition, 'spec', 'names');
    const kind = textAt(names, 'kind');
    const spec = {
      ...objectAt(definition, 'spec'),
      names: {
        ...names,
        singular: textAt(names, 'singular') || kind.toLowerCase(),
        listKind: textAt(names, 'listKind') || `${kind}List`,
      },
      conversion: valueAt(definition, 'spec', 'conversion') ?? { strategy: 'None' },
    };
    return { ...definition, spec, status: establishedStatus({ ...definition, spec }) };
  },
  validate: (definition) => {
    const errors = schemaErrors(definitionSchema, definition);
    return errors.length > 0 ? errors : nameErrors(definition);
  },
};

/** Accepted at once: nothing here checks for names in conflict, since groups differ in practice. */
function establishedStatus(definition: KubeObject): { readonly [key: string]: Json } {
  const since = definition.metadata.creationTimestamp;
  const condition = (type: string, reason: string, message: string): Json => {
    return { type, status: 'True', lastTransitionTime: since, reason, message };
  };
  const versions = listAt(definition, 'spec', 'versions');
  const stored = versions.filter((version) => valueAt(version, 'storage') === true);
  return {
    conditions: [
      condition('NamesAccepted', 'NoConflicts', 'no conflicts found'),
      condition('Established', 'InitialNamesAccepted', 'the initial names have been accepted'),
    ],
    acceptedNames: objectAt(definition, 'spec', 'names'),
    storedVersions: stored.map((version) => textAt(version, 'name')),
  };
}

function nameErrors(definition: KubeObject): readonly FieldError[] {
  const { name } = definition.metadata;
  const plural = textAt(definition, 'spec', 'names', 'plural');
  const group = textAt(definition, 'spec', 'group');
  const errors: FieldError[] = [];
  if (name !== `${plural}.${group}`) {
    errors.push(invalidValue('metadata.name', name, 'must be spec.names.plural+"."+spec.group'));
  }
  const versions = listAt(definition, 'spec', 'versions');
  if (versions.filter((version) => valueAt(version, 'storage') === true).length !== 1) {
    const detail = 'must have exactly one version marked as storage version';
    errors.push(
      invalidValue(
        'spec.versions',
        versions.map((v) => textAt(v, 'name')),
        detail,
      ),
    );
  }
  return errors;
}

/** The kinds a stored definition declares: one a served version. */
export function kindsOf(definition: KubeObject): readonly KindInfo[] {
  const names = objectAt(definition, 'spec', 'names');
  const versions = listAt(definition, 'spec', 'versions');
  return versions
    .filter((version) => valueAt(version, 'served') === true)
    .map((version) => ({
      group: textAt(definition, 'spec', 'group'),
      version: textAt(version, 'name'),
      kind: textAt(names, 'kind'),
      plural: textAt(names, 'plural'),
      singular: textAt(names, 'singular'),
      shortNames: listAt(names, 'shortNames').map((name) => textAt(name)),
      namespaced: textAt(definition, 'spec', 'scope') === 'Namespaced',
      hasStatus: isJsonObject(valueAt(version, 'subresources', 'status')),
      custom: true,
      selectableFields: listAt(version, 'selectableFields').map((field) =>
        textAt(field, 'jsonPath').replace(/^\./, ''),
      ),
      columns: listAt(version, 'additionalPrinterColumns').map(printerColumn),
      schema: objectAt(version, 'schema', 'openAPIV3Schema'),
    }));
}

function printerColumn(column: Json): Column {
  const path = textAt(column, 'jsonPath');
  const isAge = textAt(column, 'type') === 'date';
  return {
    name: textAt(column, 'name'),
    type: isAge ? 'string' : textAt(column, 'type') || 'string',
    description: textAt(column, 'description'),
    priority: Number(valueAt(column, 'priority') ?? 0),
    value: (object) => readPath(object, path),
  };
}

/** The value at a simple JSONPath: `.spec.size`, `.status.conditions[0].type`, `.a['b.c']`. */
function readPath(object: KubeObject, path: string): Json {
  const steps = path.matchAll(/\.(?<name>[^.[\]]+)|\[(?<index>\d+)\]|\['(?<quoted>[^']*)'\]/g);
  let at: Json | undefined = object;
  for (const { groups } of steps) {
    const index = groups?.['index'];
    if (index !== undefined) at = Array.isArray(at) ? (at[Number(index)] as Json) : undefined;
    else at = valueAt(at, groups?.['name'] ?? groups?.['quoted'] ?? '');
  }
  return at === undefined || at === null ? '' : at;
}

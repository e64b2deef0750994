/** Which kinds the server serves: data for the built-in ones, CustomResourceDefinitions for others. */
import { qualified } from './api-error.ts';
import type { JsonObject } from './json.ts';
import type { Column } from './table.ts';

/** One version of one kind. Versions of a kind share their objects (storage). */
export interface KindInfo {
  /** Empty for the core group. */
  readonly group: string;
  readonly version: string;
  readonly kind: string;
  /** Lower case, as in paths. */
  readonly plural: string;
  readonly singular: string;
  readonly shortNames: readonly string[];
  readonly namespaced: boolean;
  /** Has a `/status` subresource: what is written to one side leaves the other alone. */
  readonly hasStatus: boolean;
  /** Came with a CustomResourceDefinition. */
  readonly custom: boolean;
  /** Paths a field selector may name, beside metadata.name and metadata.namespace. */
  readonly selectableFields: readonly string[];
  /** Columns of `kubectl get` between NAME and AGE. */
  readonly columns: readonly Column[];
  /** Shown by `kubectl explain`; JSON schema in the OpenAPI v3 dialect. */
  readonly schema: JsonObject | undefined;
}

/** "v1" or "discovery.k8s.io/v1". */
export function apiVersionOf(kind: Pick<KindInfo, 'group' | 'version'>): string {
  return kind.group === '' ? kind.version : `${kind.group}/${kind.version}`;
}

/** Where objects of the kind are kept: "pods", "endpointslices.discovery.k8s.io". */
export function resourceOf(kind: Pick<KindInfo, 'group' | 'plural'>): string {
  return qualified(kind);
}

/** The kinds served now. Changes when CustomResourceDefinitions come and go. */
export class KindRegistry {
  readonly #builtin: readonly KindInfo[];
  readonly #custom = new Map<string, readonly KindInfo[]>();
  #all: readonly KindInfo[];

  constructor(builtin: readonly KindInfo[]) {
    this.#builtin = builtin;
    this.#all = builtin;
  }

  get all(): readonly KindInfo[] {
    return this.#all;
  }

  byPath(group: string, version: string, plural: string): KindInfo | undefined {
    return this.#all.find(
      (kind) => kind.plural === plural && kind.group === group && kind.version === version,
    );
  }

  byKind(apiVersion: string, kind: string): KindInfo | undefined {
    return this.#all.find((info) => info.kind === kind && apiVersionOf(info) === apiVersion);
  }

  /** Replaces the kinds of one definition; an empty list ends their service. */
  setCustom(definition: string, kinds: readonly KindInfo[]): void {
    if (kinds.length === 0) this.#custom.delete(definition);
    else this.#custom.set(definition, kinds);
    this.#all = [...this.#builtin, ...[...this.#custom.values()].flat()];
  }

  /** Groups with their versions, core first, in the order of declaration. */
  groups(): readonly { readonly group: string; readonly versions: readonly string[] }[] {
    const byGroup = Map.groupBy(this.#all, (kind) => kind.group);
    return [...byGroup].map(([group, kinds]) => ({
      group,
      versions: [...new Set(kinds.map((kind) => kind.version))],
    }));
  }
}

/** Whether the kind is the core Namespace, whose objects hold others. */
export function isNamespaceKind(kind: KindInfo): boolean {
  return kind.group === '' && kind.plural === 'namespaces';
}

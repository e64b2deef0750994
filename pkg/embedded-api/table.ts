/** `kubectl get`: objects as rows (meta.k8s.io/v1 Table). */
import type { Json, JsonObject } from './json.ts';
import type { KindInfo } from './kinds.ts';
import type { KubeObject } from './object.ts';

/** One column of a kind. */
export interface Column {
  readonly name: string;
  readonly type: string;
  readonly description?: string;
  /** 0 is shown always, greater only with `-o wide`. */
  readonly priority: number;
  readonly value: (object: KubeObject, nowMs: number) => Json;
}

/** What the rows carry beside their cells (`includeObject`). */
export type RowObject = 'Metadata' | 'None' | 'Object';

/** Column definitions of a kind: its name, its own, its age. */
export function columnDefinitions(kind: KindInfo): readonly JsonObject[] {
  return allColumns(kind).map(({ name, type, description, priority }) => ({
    name,
    type,
    format: name === 'Name' ? 'name' : '',
    description: description ?? '',
    priority,
  }));
}

/** One object as a row. */
export function tableRow(
  kind: KindInfo,
  object: KubeObject,
  include: RowObject,
  nowMs: number,
): JsonObject {
  const cells = allColumns(kind).map((column) => column.value(object, nowMs));
  if (include === 'None') return { cells };
  return { cells, object: include === 'Object' ? object : metadataOnly(object) };
}

/** `meta.k8s.io/v1 PartialObjectMetadata`. */
export function metadataOnly(object: KubeObject): JsonObject {
  return {
    kind: 'PartialObjectMetadata',
    apiVersion: 'meta.k8s.io/v1',
    metadata: object.metadata,
  };
}

/** How long ago, as kubectl writes ages: 45s, 3m12s, 5h, 4d3h, 2y (duration.HumanDuration). */
export function age(sinceMs: number, nowMs: number): string {
  if (Number.isNaN(sinceMs)) return '<unknown>';
  const seconds = Math.max(0, Math.floor((nowMs - sinceMs) / 1000));
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  const days = Math.floor(hours / 24);
  const pair = (big: number, unit: string, rest: number, restUnit: string): string =>
    rest === 0 ? `${big}${unit}` : `${big}${unit}${rest}${restUnit}`;
  if (seconds < 120) return `${seconds}s`;
  if (minutes < 10) return pair(minutes, 'm', seconds % 60, 's');
  if (minutes < 180) return `${minutes}m`;
  if (hours < 8) return pair(hours, 'h', minutes % 60, 'm');
  if (hours < 48) return `${hours}h`;
  if (days < 8) return pair(days, 'd', hours % 24, 'h');
  if (days < 730) return `${days}d`;
  return `${Math.floor(days / 365)}y`;
}

const nameColumn: Column = {
  name: 'Name',
  type: 'string',
  description: 'Name must be unique within a namespace.',
  priority: 0,
  value: (object) => object.metadata.name,
};

const ageColumn: Column = {
  name: 'Age',
  type: 'string',
  description: 'Time since the object was created.',
  priority: 0,
  value: (object, nowMs) => age(Date.parse(object.metadata.creationTimestamp), nowMs),
};

/** AGE stands before the columns only `-o wide` shows, as kubectl users know it. */
function allColumns(kind: KindInfo): readonly Column[] {
  const hasAge = kind.columns.some((column) => column.name === 'Age');
  const shown = kind.columns.filter((column) => column.priority === 0);
  const wide = kind.columns.filter((column) => column.priority > 0);
  return [nameColumn, ...shown, ...(hasAge ? [] : [ageColumn]), ...wide];
}

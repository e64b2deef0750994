/**
 * Messages kubectl sends as protobuf, whatever the server says it reads: what its `create`
 * commands fill in (k8s.io/api core/v1 and apimachinery generated.proto).
 */
import { textAt, valueAt, type Json, type JsonObject } from '#pkg/embedded-api/json.ts';

export type FieldType =
  | 'bool'
  /** Overwritten by the server in any case. */
  | 'ignored'
  | 'int'
  | 'string'
  /** map<string, bytes>, base64 in JSON. */
  | 'map of bytes'
  | 'map of strings'
  | Message;

export interface Field {
  readonly name: string;
  readonly type: FieldType;
  readonly isList?: boolean;
}

export interface Message {
  readonly name: string;
  /** By field number. */
  readonly fields: ReadonlyMap<number, Field>;
  /** What the message is in JSON, where that is no object of its fields. */
  readonly toJson?: (fields: JsonObject) => Json | undefined;
}

const objectMeta = message('ObjectMeta', {
  1: field('name', 'string'),
  2: field('generateName', 'string'),
  3: field('namespace', 'string'),
  4: field('selfLink', 'ignored'),
  5: field('uid', 'string'),
  6: field('resourceVersion', 'string'),
  7: field('generation', 'ignored'),
  8: field('creationTimestamp', 'ignored'),
  11: field('labels', 'map of strings'),
  12: field('annotations', 'map of strings'),
  14: list('finalizers', 'string'),
});

const intOrString: Message = {
  ...message('IntOrString', {
    1: field('type', 'int'),
    2: field('intVal', 'int'),
    3: field('strVal', 'string'),
  }),
  toJson: (fields) =>
    valueAt(fields, 'type') === 1 ? textAt(fields, 'strVal') : (valueAt(fields, 'intVal') ?? 0),
};

const servicePort = message('ServicePort', {
  1: field('name', 'string'),
  2: field('protocol', 'string'),
  3: field('port', 'int'),
  4: field('targetPort', intOrString),
  5: field('nodePort', 'int'),
});

const serviceSpec = message('ServiceSpec', {
  1: list('ports', servicePort),
  2: field('selector', 'map of strings'),
  3: field('clusterIP', 'string'),
  4: field('type', 'string'),
  5: list('externalIPs', 'string'),
  7: field('sessionAffinity', 'string'),
  8: field('loadBalancerIP', 'string'),
  9: list('loadBalancerSourceRanges', 'string'),
  10: field('externalName', 'string'),
  11: field('externalTrafficPolicy', 'string'),
  12: field('healthCheckNodePort', 'int'),
  13: field('publishNotReadyAddresses', 'bool'),
});

/** `runtime.Unknown`, the envelope after the four bytes "k8s\0". */
export const envelope = message('Unknown', {
  1: field(
    'typeMeta',
    message('TypeMeta', { 1: field('apiVersion', 'string'), 2: field('kind', 'string') }),
  ),
  2: field('raw', 'ignored'),
  3: field('contentEncoding', 'string'),
  4: field('contentType', 'string'),
});

/** Number of the envelope's field that holds the object's own bytes. */
export const envelopeRaw = 2;

/** Objects by "apiVersion Kind". */
export const messages: ReadonlyMap<string, Message> = new Map([
  [
    'v1 Namespace',
    message('Namespace', {
      1: field('metadata', objectMeta),
      2: field('spec', message('NamespaceSpec', { 1: list('finalizers', 'string') })),
      3: field('status', 'ignored'),
    }),
  ],
  [
    'v1 ConfigMap',
    message('ConfigMap', {
      1: field('metadata', objectMeta),
      2: field('data', 'map of strings'),
      3: field('binaryData', 'map of bytes'),
      4: field('immutable', 'bool'),
    }),
  ],
  [
    'v1 Service',
    message('Service', {
      1: field('metadata', objectMeta),
      2: field('spec', serviceSpec),
      3: field('status', 'ignored'),
    }),
  ],
]);

function message(name: string, fields: Readonly<Record<number, Field>>): Message {
  const entries = Object.entries(fields).map(([number, item]) => [Number(number), item] as const);
  return { name, fields: new Map(entries) };
}

function field(name: string, type: FieldType): Field {
  return { name, type };
}

function list(name: string, type: FieldType): Field {
  return { name, type, isList: true };
}

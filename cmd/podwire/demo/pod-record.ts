/** What the demo's kubelet reads of a Pod. */
import { z } from 'zod';
import type { ResourceType } from '#pkg/kube/resources.ts';
import type { ObjectMeta } from '#pkg/kube/types.ts';

export const podType: ResourceType = {
  group: '',
  version: 'v1',
  plural: 'pods',
  kind: 'Pod',
  namespaced: true,
};

export interface PodRecord extends ObjectMeta {
  /** Empty until scheduled. */
  readonly nodeName: string;
  readonly nodeSelector: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly deleting: boolean;
  /** "Succeeded" and "Failed" pods run no more. */
  readonly phase: string;
  readonly containers: readonly PodContainer[];
}

export interface PodContainer {
  readonly name: string;
  readonly image: string;
  readonly ports: readonly PodPort[];
}

export interface PodPort {
  readonly containerPort: number;
  /** 0 = none. */
  readonly hostPort: number;
  readonly hostIP: string;
  readonly protocol: string;
}

const strings = z.record(z.string(), z.string()).default({});

const portSchema = z.object({
  containerPort: z.number(),
  hostPort: z.number().default(0),
  hostIP: z.string().default(''),
  protocol: z.string().default('TCP'),
});

const podSchema = z.object({
  metadata: z.object({
    namespace: z.string(),
    name: z.string(),
    uid: z.string(),
    resourceVersion: z.string(),
    annotations: strings,
    deletionTimestamp: z.string().optional(),
  }),
  spec: z.object({
    nodeName: z.string().default(''),
    nodeSelector: strings,
    containers: z.array(
      z.object({
        name: z.string(),
        image: z.string().default(''),
        ports: z.array(portSchema).default([]),
      }),
    ),
  }),
  status: z.object({ phase: z.string().default('Pending') }).default({ phase: 'Pending' }),
});

export function projectPod(raw: unknown): PodRecord {
  const { metadata, spec, status } = podSchema.parse(raw);
  const { namespace, name, uid, resourceVersion, annotations, deletionTimestamp } = metadata;
  const identity = { namespace, name, uid, resourceVersion };
  const deleting = deletionTimestamp !== undefined;
  return { ...identity, ...spec, annotations, deleting, phase: status.phase };
}

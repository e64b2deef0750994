/** Applies YAML manifests through the API, as `kubectl apply --server-side` does. */
import { readFile } from 'node:fs/promises';
import { parseAllDocuments } from 'yaml';
import { z } from 'zod';
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { KubeClient } from '#pkg/kube/client.ts';
import { nodeType, serviceType, type ObjectRef, type ResourceType } from '#pkg/kube/resources.ts';
import { podType } from './pod-record.ts';

const known: readonly ResourceType[] = [nodeType, podType, serviceType];

const manifestSchema = z.looseObject({
  apiVersion: z.string(),
  kind: z.string(),
  metadata: z.looseObject({ name: z.string(), namespace: z.string().optional() }),
  status: z.looseObject({}).optional(),
});

/** Applies every document of a file, in its order; a document's status through the subresource. */
export async function applyManifests(
  client: KubeClient,
  path: string,
  signal: AbortSignal,
): Promise<void> {
  for (const document of parseAllDocuments(await readFile(path, 'utf8'))) {
    const manifest = manifestSchema.safeParse(document.toJS());
    if (!manifest.success) {
      throw new AgentError(
        'WrongManifest',
        `Cannot apply ${path}: ${z.prettifyError(manifest.error)}`,
      );
    }
    await applyObject(client, manifest.data, signal);
  }
}

async function applyObject(
  client: KubeClient,
  manifest: z.output<typeof manifestSchema>,
  signal: AbortSignal,
): Promise<void> {
  const { status, ...body } = manifest;
  const { apiVersion, kind, metadata } = manifest;
  const ref = refOf(manifest);
  const patch = { kind: 'apply', fieldManager: 'podwire-demo' } as const;
  await client.patch(ref, { ...patch, body }, signal);
  if (status === undefined) return;
  const statusBody = { apiVersion, kind, metadata, status };
  await client.patch({ ...ref, subresource: 'status' }, { ...patch, body: statusBody }, signal);
}

function refOf({ kind, apiVersion, metadata }: z.output<typeof manifestSchema>): ObjectRef {
  const type = known.find(
    (t) => t.kind === kind && [t.group, t.version].filter(Boolean).join('/') === apiVersion,
  );
  if (type === undefined) {
    throw new AgentError(
      'WrongManifest',
      `Cannot apply ${apiVersion} ${kind}: expected one of ${known.map((t) => t.kind).join(', ')}`,
    );
  }
  const { name, namespace = 'default' } = metadata;
  return type.namespaced ? { type, namespace, name } : { type, name };
}

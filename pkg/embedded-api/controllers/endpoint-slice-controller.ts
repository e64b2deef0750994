/** Keeps EndpointSlices in line with Services and Pods, as kube-controller-manager does. */
import { textAt, textMapAt } from '#pkg/embedded-api/json.ts';
import { objectKey, type KubeObject } from '#pkg/embedded-api/object.ts';
import { labelsMatch } from '#pkg/embedded-api/selectors.ts';
import type { Change } from '#pkg/embedded-api/watch-log.ts';
import type { ControllerContext } from './context.ts';
import {
  controllerName,
  managedByLabel,
  planSlices,
  serviceNameLabel,
  type SliceStep,
} from './endpoint-slice-plan.ts';
import { endpointGroups, selectsPods } from './pod-endpoints.ts';

const sliceResource = 'endpointslices.discovery.k8s.io';
const sliceKind = { apiVersion: 'discovery.k8s.io/v1', kind: 'EndpointSlice' };
const zoneLabel = 'topology.kubernetes.io/zone';

/** Services looked at before other work gets its turn. */
const servicesPerRound = 200;

/** Follows the storage until disposed of. Writes come right after the changes they follow. */
export class EndpointSliceController implements Disposable {
  readonly #context: ControllerContext;
  readonly #unsubscribe: () => void;
  /** Keys of our slices by the key of their Service. */
  readonly #slices = new Map<string, Set<string>>();
  /** Keys of Services to look at. */
  readonly #dirty = new Set<string>();
  #round: NodeJS.Immediate | undefined;

  constructor(context: ControllerContext) {
    const { storage } = context;
    this.#context = context;
    this.#unsubscribe = storage.subscribe((change) => this.#follow(change));
    for (const [key, slice] of storage.snapshot(sliceResource).entries) this.#index(key, slice);
    for (const [key] of storage.snapshot('services').entries) this.#mark(key);
  }

  [Symbol.dispose](): void {
    this.#unsubscribe();
    clearImmediate(this.#round);
  }

  #follow(change: Change): void {
    const { storage } = this.#context;
    const { namespace = '' } = change.object.metadata;
    switch (change.resource) {
      case 'services':
        this.#mark(change.key);
        return;
      case sliceResource:
        if (change.previous !== undefined) this.#unindex(change.key, change.previous);
        if (change.type !== 'DELETED') this.#index(change.key, change.object);
        return;
      case 'pods':
        this.#markServicesOf([change.object, change.previous], namespace);
        return;
      case 'nodes':
        // Endpoints carry their node's zone; it is set when the node joins and seldom again.
        if (zoneOf(change.object) === zoneOf(change.previous)) return;
        for (const [key] of storage.snapshot('services').entries) this.#mark(key);
        return;
      default:
    }
  }

  #markServicesOf(pods: readonly (KubeObject | undefined)[], namespace: string): void {
    const { storage } = this.#context;
    for (const [key, service] of storage.snapshot('services', `${namespace}/`).entries) {
      const selector = textMapAt(service, 'spec', 'selector');
      const isSelected = pods.some(
        (pod) => pod !== undefined && labelsMatch(pod.metadata.labels ?? {}, selector),
      );
      if (isSelected) this.#mark(key);
    }
  }

  /** A slice of ours that someone else changed or removed is put right, too. */
  #index(key: string, slice: KubeObject): void {
    const owner = ownerOf(slice);
    if (owner === undefined) return;
    const keys = this.#slices.get(owner) ?? new Set();
    this.#slices.set(owner, keys.add(key));
    this.#mark(owner);
  }

  #unindex(key: string, slice: KubeObject): void {
    const owner = ownerOf(slice);
    if (owner === undefined) return;
    const keys = this.#slices.get(owner);
    keys?.delete(key);
    if (keys?.size === 0) this.#slices.delete(owner);
    this.#mark(owner);
  }

  /** The round runs when the changes under way are through: a hundred new pods cost one round. */
  #mark(key: string): void {
    this.#dirty.add(key);
    this.#round ??= setImmediate(() => {
      this.#round = undefined;
      for (const dirty of [...this.#dirty].slice(0, servicesPerRound)) {
        this.#dirty.delete(dirty);
        this.#reconcile(dirty);
      }
      const [next] = this.#dirty;
      if (next !== undefined) this.#mark(next);
    });
  }

  #reconcile(key: string): void {
    const { storage, log } = this.#context;
    const [namespace = ''] = key.split('/');
    try {
      const service = storage.get('services', key);
      const have = [...(this.#slices.get(key) ?? [])]
        .toSorted()
        .map((slice) => storage.get(sliceResource, slice))
        .filter((slice) => slice !== undefined);
      const steps =
        service === undefined
          ? have.map((slice) => ({ op: 'delete', name: slice.metadata.name }) as const)
          : this.#plan(service, have);
      for (const step of steps) this.#apply(namespace, step);
    } catch (error) {
      // One bad Service must not stop the others; its next change brings another attempt.
      log.warn({ err: error, service: key }, 'cannot write EndpointSlices');
    }
  }

  #plan(service: KubeObject, have: readonly KubeObject[]): readonly SliceStep[] {
    const { storage } = this.#context;
    const { namespace = '', deletionTimestamp } = service.metadata;
    if (!selectsPods(service) || deletionTimestamp !== undefined) return [];
    if (storage.get('namespaces', namespace)?.metadata.deletionTimestamp !== undefined) {
      return [];
    }
    const selector = textMapAt(service, 'spec', 'selector');
    const pods = storage
      .snapshot('pods', `${namespace}/`)
      .entries.map(([, pod]) => pod)
      .filter((pod) => labelsMatch(pod.metadata.labels ?? {}, selector));
    const zone = (nodeName: string): string => zoneOf(storage.get('nodes', nodeName));
    return planSlices(service, endpointGroups(service, pods, zone), have);
  }

  #apply(namespace: string, step: SliceStep): void {
    const { access } = this.#context;
    switch (step.op) {
      case 'create':
        access.create(step.slice);
        return;
      case 'update':
        access.update(step.slice);
        return;
      case 'delete':
        access.delete({ ...sliceKind, namespace, name: step.name });
    }
  }
}

function zoneOf(node: KubeObject | undefined): string {
  return textAt(node, 'metadata', 'labels', zoneLabel);
}

/** Key of the Service one of our slices belongs to; undefined for slices of others. */
function ownerOf({ metadata }: KubeObject): string | undefined {
  const owner = metadata.labels?.[serviceNameLabel];
  const isOurs = metadata.labels?.[managedByLabel] === controllerName;
  return owner !== undefined && isOurs ? objectKey(metadata.namespace, owner) : undefined;
}

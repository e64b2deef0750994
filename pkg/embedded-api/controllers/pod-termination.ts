/**
 * Ends Pods whose grace period is over. No kubelet runs here that could confirm the end of a
 * Pod; whoever plays one may delete it earlier, with a grace period of zero.
 */
import type { KubeObject } from '#pkg/embedded-api/object.ts';
import type { ControllerContext } from './context.ts';

/** Follows the Pods until disposed of. */
export class PodTermination implements Disposable {
  readonly #context: ControllerContext;
  readonly #unsubscribe: () => void;
  readonly #stop = new AbortController();

  constructor(context: ControllerContext) {
    this.#context = context;
    this.#unsubscribe = context.storage.subscribe((change) => {
      if (change.resource === 'pods' && change.type !== 'DELETED') this.#end(change.object);
    });
    for (const [, pod] of context.storage.snapshot('pods').entries) this.#end(pod);
  }

  [Symbol.dispose](): void {
    this.#unsubscribe();
    this.#stop.abort();
  }

  #end(pod: KubeObject): void {
    const { deletionTimestamp, deletionGracePeriodSeconds = 0 } = pod.metadata;
    if (deletionTimestamp === undefined || deletionGracePeriodSeconds === 0) return;
    const { clock } = this.#context;
    const leftMs = Math.max(0, Date.parse(deletionTimestamp) - clock.now());
    void clock.sleep(leftMs, this.#stop.signal).then(
      () => this.#remove(pod),
      () => undefined,
    );
  }

  #remove({ metadata }: KubeObject): void {
    const { access, log } = this.#context;
    const { namespace = '', name, uid, deletionTimestamp } = metadata;
    const podName = { apiVersion: 'v1', kind: 'Pod', namespace, name };
    const now = access.find(podName)?.metadata;
    // Another Pod of that name, or a shorter grace period that another timer waits for.
    if (now?.uid !== uid || now.deletionTimestamp !== deletionTimestamp) return;
    try {
      access.delete(podName, { gracePeriodSeconds: 0 });
    } catch (error) {
      log.warn({ err: error, pod: `${namespace}/${name}` }, 'cannot end Pod');
    }
  }
}

/**
 * Routes that this daemon has put, and may put again where another took their place: a route that
 * somebody changes by hand is no longer marked as ours, and a stranger's is never overwritten.
 */
import { objectKey, type HostObject } from '#pkg/host-network/object.ts';
import type { Step } from '#pkg/host-network/step.ts';
import type { Prefix } from '#pkg/ip/prefix.ts';

export class HeldRoutes {
  readonly #objects: readonly HostObject[];
  /** Done since, and not in the keys yet. */
  #done: readonly Step[] = [];
  #keys: Set<string> | undefined;

  /** @param objects all that is in the kernel after a round */
  constructor(objects: readonly HostObject[]) {
    this.#objects = objects;
  }

  /** These steps were carried out. */
  note(steps: readonly Step[]): void {
    this.#done = [...this.#done, ...steps.filter(({ object }) => object.kind === 'route')];
  }

  /** What is held after a round that wanted these objects and could not put some of them. */
  after(want: readonly HostObject[], notPut: ReadonlySet<HostObject>): HeldRoutes {
    return new HeldRoutes(want.filter((o) => !notPut.has(o) || this.#has(o)));
  }

  hasRouteTo(destination: Prefix): boolean {
    return this.#has({
      kind: 'route',
      destination,
      via: destination.address,
      link: '',
      onLink: false,
    });
  }

  /** The steps, of which those that put such a route overwrite what is there. */
  reclaim(steps: readonly Step[]): readonly Step[] {
    return steps.map((step) =>
      step.op === 'put' && step.object.kind === 'route' && step.replaces === undefined
        ? this.#reclaimed(step)
        : step,
    );
  }

  #reclaimed(step: Extract<Step, { readonly op: 'put' }>): Step {
    return this.#has(step.object) ? { ...step, replaces: step.object } : step;
  }

  /** Made when somebody asks: most rounds put no route. */
  #has(route: HostObject): boolean {
    this.#keys ??= new Set(this.#objects.filter(({ kind }) => kind === 'route').map(objectKey));
    for (const { op, object } of this.#done) {
      if (op === 'put') this.#keys.add(objectKey(object));
      else this.#keys.delete(objectKey(object));
    }
    this.#done = [];
    return this.#keys.has(objectKey(route));
  }
}

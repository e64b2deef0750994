/**
 * What the server does to objects of one kind on their way in: fill defaults, hand out addresses
 * and ports, refuse what is wrong. Rules are pure; what they need to know comes with the request.
 */
import type { FieldError } from './api-error.ts';
import type { KubeObject } from './object.ts';
import type { ServiceAllocations } from './admission/service-allocations.ts';

export interface AdmissionContext {
  readonly allocations: ServiceAllocations;
}

export interface KindRules {
  /** Fills in what the real server fills in; `old` is undefined when the object is created. */
  readonly withDefaults?: (object: KubeObject, old: KubeObject | undefined) => KubeObject;
  /** Everything wrong with the object, after defaults; empty = admit it. */
  readonly validate?: (object: KubeObject, old: KubeObject | undefined) => readonly FieldError[];
  /** Hands out addresses and ports. Commits nothing: allocations follow the stored objects. */
  readonly allocate?: (
    object: KubeObject,
    old: KubeObject | undefined,
    context: AdmissionContext,
  ) => KubeObject | readonly FieldError[];
}

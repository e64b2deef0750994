/** What the daemon's main thread and its CNI threads tell each other. */

export interface CniWorkerData {
  readonly listenFd: number;
  readonly pool: number;
  readonly worker: number;
  /** Stays although no caller comes. */
  readonly keep: boolean;
  readonly state: SharedArrayBuffer;
}

export type CniWorkerMessage =
  | { readonly kind: 'busy' }
  | { readonly kind: 'problem'; readonly text: string };

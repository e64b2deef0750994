/** A request that says what it is only when somebody asks: of thousands few are refused. */
import type { NetlinkRequest } from './socket.ts';

export class DescribedRequest implements NetlinkRequest {
  readonly type: number;
  readonly flags: number;
  readonly body: readonly Uint8Array[];
  readonly #describe: () => string;

  /** @param describe gives `what` */
  constructor(type: number, flags: number, body: Uint8Array, describe: () => string) {
    this.type = type;
    this.flags = flags;
    this.body = [body];
    this.#describe = describe;
  }

  get what(): string {
    return this.#describe();
  }
}

/** Who has an address and port that several Service ports want: one virtual server, one fate. */
import type { VirtualServer } from '#pkg/ipvs/virtual-server.ts';
import type { IpvsEntry, SetMember } from './ipvs-port.ts';
import { byKey } from './proxied-port.ts';

export class IpvsClaims {
  /** By serverKey(), then by the port that wants it. */
  readonly #claims = new Map<string, Map<string, IpvsEntry>>();

  /** Whether anybody wants it, and nobody has endpoints for it. */
  refuses(key: string): boolean {
    return this.#winner(key)?.server.realServers.length === 0;
  }

  /** Undefined also where it is {@link refuses refused}. */
  server(key: string): VirtualServer | undefined {
    const server = this.#winner(key)?.server;
    return server === undefined || server.realServers.length === 0 ? undefined : server;
  }

  /** What the rules must know of the place, by who has it. */
  members(key: string): readonly SetMember[] {
    return this.#winner(key)?.members ?? [];
  }

  keys(): Iterable<string> {
    return this.#claims.keys();
  }

  add(port: string, entry: IpvsEntry): void {
    const { key } = entry;
    const claims = this.#claims.get(key) ?? new Map<string, IpvsEntry>();
    this.#claims.set(key, claims.set(port, entry));
  }

  delete(port: string, { key }: IpvsEntry): void {
    const claims = this.#claims.get(key);
    claims?.delete(port);
    if (claims?.size === 0) this.#claims.delete(key);
  }

  /**
   * As in iptables mode: who has endpoints, then a Service's own address before a node port, then
   * the first by name.
   */
  #winner(key: string): IpvsEntry | undefined {
    let first: readonly [string, IpvsEntry] | undefined;
    for (const claim of this.#claims.get(key) ?? []) {
      if (first === undefined || isBefore(claim, first)) first = claim;
    }
    return first?.[1];
  }
}

type Claim = readonly [port: string, entry: IpvsEntry];

function isBefore([portA, a]: Claim, [portB, b]: Claim): boolean {
  const [isServedA, isServedB] = [a, b].map(({ server }) => server.realServers.length > 0);
  if (isServedA !== isServedB) return isServedA === true;
  if (a.isNodePort !== b.isNodePort) return b.isNodePort;
  return byKey(portA, portB) < 0;
}

/**
 * Which WireGuard peers there is a session with. The kernel tells when the last handshake was by the
 * machine's clock, which somebody may set: of one that happens while we look, our own time counts.
 */

/** REJECT_AFTER_TIME: no packet is sent or taken with keys this old (WireGuard paper, §6.1). */
const sessionMs = 180_000;

export interface PeerHandshake {
  readonly publicKey: string;
  /** Since the Unix epoch; 0 = never. */
  readonly handshakeAtSeconds: number;
}

interface Seen {
  readonly handshakeAtSeconds: number;
  /** When it was, by the monotonic clock. */
  readonly atMs: number;
}

/** Remembers the last handshakes. */
export class WireguardSessions {
  readonly #links = new Map<string, ReadonlyMap<string, Seen>>();

  /** Public keys of those of a device's peers that there is a session with; these are all its peers. */
  live(link: string, peers: readonly PeerHandshake[]): ReadonlySet<string> {
    const nowMs = performance.now();
    const before = this.#links.get(link);
    const seen = new Map(
      peers
        .filter(({ handshakeAtSeconds }) => handshakeAtSeconds > 0)
        .map(({ publicKey, handshakeAtSeconds }): [string, Seen] => {
          const last = before?.get(publicKey);
          if (last?.handshakeAtSeconds === handshakeAtSeconds) return [publicKey, last];
          // At the first look nobody but the machine's clock knows.
          const agoMs = before === undefined ? Date.now() - handshakeAtSeconds * 1000 : 0;
          return [publicKey, { handshakeAtSeconds, atMs: nowMs - Math.max(0, agoMs) }];
        }),
    );
    this.#links.set(link, seen);
    return new Set([...seen].flatMap(([key, { atMs }]) => (nowMs - atMs < sessionMs ? [key] : [])));
  }
}

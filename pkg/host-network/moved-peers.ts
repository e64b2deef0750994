/**
 * Which WireGuard peers somebody has given another endpoint by hand. The kernel does so, too, with a packet
 * of the peer (see roamed-peers.ts), but it counts what it receives: where the count is what it was, it was
 * somebody. Where both are others it was the peer, unless nothing more comes from there though packets go
 * there.
 */
import type { WireguardPeer } from './object.ts';
import { sameEndpoint } from './roamed-peers.ts';

/** A peer at one look. */
export interface PeerSighting {
  readonly publicKey: string;
  readonly endpoint: WireguardPeer['endpoint'];
  readonly receivedBytes: number;
  readonly sentBytes: number;
}

interface Judged extends PeerSighting {
  readonly verdict: 'itself' | 'doubtful' | 'moved';
}

/** Remembers the last look. */
export class MovedPeers {
  readonly #links = new Map<string, Map<string, Judged>>();

  /** Takes in all peers of a device. */
  look(link: string, peers: readonly PeerSighting[]): void {
    const before = this.#links.get(link);
    this.#links.set(
      link,
      new Map(peers.map((now) => [now.publicKey, judged(before?.get(now.publicKey), now)])),
    );
  }

  has({ link, publicKey }: Pick<WireguardPeer, 'link' | 'publicKey'>): boolean {
    return this.#links.get(link)?.get(publicKey)?.verdict === 'moved';
  }

  /** We have given it this endpoint. */
  told({ link, publicKey, endpoint }: WireguardPeer): void {
    const peers = this.#links.get(link);
    const before = peers?.get(publicKey);
    if (before === undefined || endpoint === undefined) return;
    peers?.set(publicKey, { ...before, endpoint, verdict: 'itself' });
  }
}

function judged(before: Judged | undefined, now: PeerSighting): Judged {
  if (before === undefined) return { ...now, verdict: 'itself' };
  const isHeard = now.receivedBytes !== before.receivedBytes;
  if (!sameEndpoint(before.endpoint, now.endpoint)) {
    return { ...now, verdict: isHeard ? 'doubtful' : 'moved' };
  }
  if (isHeard) return { ...now, verdict: 'itself' };
  const isDeaf = before.verdict === 'doubtful' && now.sentBytes > before.sentBytes;
  return { ...now, verdict: isDeaf || before.verdict === 'moved' ? 'moved' : 'itself' };
}

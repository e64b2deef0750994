/**
 * WireGuard's kernel takes as a peer's endpoint wherever its last authentic packet came from ("Key
 * Routing" in the WireGuard paper, §2.1): behind a NAT that is the only address that works. So an
 * endpoint that is another than we told is left as it is while there is a session. We write one when
 * the node's own data changed, when the peer is new, and when nothing is heard of it any more.
 */
import { sameAddress } from '#pkg/ip/address.ts';
import { objectKey, type HostObject, type WireguardPeer } from './object.ts';
import type { Step } from './step.ts';

type Endpoint = WireguardPeer['endpoint'];

/** Remembers what the kernel was told. */
export class RoamedPeers {
  #told: Map<string, Endpoint> = new Map();

  /**
   * What there is, with the wanted endpoints of peers whose learned ones are as good: to be compared
   * with `want`. Of a peer that was there before this process nobody knows what was told; a session
   * proves that its endpoint works.
   */
  accept(want: readonly HostObject[], have: readonly HostObject[]): readonly HostObject[] {
    if (!have.some(isLive)) return have;
    const wanted = new Map(want.filter(isPeer).map((peer) => [objectKey(peer), peer]));
    return have.map((there) => {
      const peer = isLive(there) ? wanted.get(objectKey(there)) : undefined;
      if (peer === undefined || !isLive(there)) return there;
      const key = objectKey(there);
      const isNews = this.#told.has(key) && !sameEndpoint(this.#told.get(key), peer.endpoint);
      return isNews ? there : { ...there, endpoint: peer.endpoint };
    });
  }

  /** These were carried out. */
  done(steps: readonly Step[]): void {
    for (const { object, op } of steps) {
      if (object.kind !== 'wireguard-peer') continue;
      if (op === 'put') this.#told.set(objectKey(object), object.endpoint);
      else this.#told.delete(objectKey(object));
    }
  }

  /** The kernel has all of these. */
  settled(want: readonly HostObject[]): void {
    this.#told = new Map(want.filter(isPeer).map((peer) => [objectKey(peer), peer.endpoint]));
  }
}

function isPeer(object: HostObject): object is WireguardPeer {
  return object.kind === 'wireguard-peer';
}

function isLive(object: HostObject): object is WireguardPeer {
  return isPeer(object) && object.live === true;
}

/** Also when both have none. */
export function sameEndpoint(a: Endpoint, b: Endpoint): boolean {
  if (a === undefined || b === undefined) return a === b;
  return a.port === b.port && sameAddress(a.address, b.address);
}

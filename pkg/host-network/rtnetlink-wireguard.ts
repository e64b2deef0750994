/** WireGuard for the host network's driver. It alone holds the secret keys. */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { compareAddresses } from '#pkg/ip/address.ts';
import { changeLinkRequest, deleteLink } from '#pkg/netlink/link-change.ts';
import { createWireguard } from '#pkg/netlink/link-create-overlay.ts';
import type { NetlinkRequest, NetlinkSocket } from '#pkg/netlink/socket.ts';
import {
  deleteWireguardPeerRequest,
  putWireguardPeerRequest,
  readWireguard,
  setWireguardRequest,
  wireguardFamily,
  type WireguardPeerRecord,
  type WireguardRecord,
} from '#pkg/netlink/wireguard.ts';
import type { WireguardLink } from './device.ts';
import { MovedPeers } from './moved-peers.ts';
import { aliasOf, type WireguardPeer } from './object.ts';
import type { Step } from './step.ts';
import { WireguardSessions } from './wireguard-sessions.ts';
import { formatKey, parseKey, presharedKeyName, publicKeyOf } from './wireguard-key.ts';

export interface WireguardSecrets {
  readonly privateKey: Uint8Array;
  readonly presharedKey: Uint8Array | undefined;
}

/** A WireGuard device as observed; its mtu and state are those of any link. */
export interface ObservedWireguard {
  /** Empty while it has none. */
  readonly publicKey: string;
  readonly port: number;
  readonly peers: readonly WireguardPeer[];
}

/** The namespace's WireGuard devices, over a socket of the protocol NETLINK_GENERIC. */
export class WireguardDriver {
  readonly #generic: NetlinkSocket;
  readonly #privateKeys: ReadonlyMap<string, Uint8Array>;
  readonly #presharedKeys: ReadonlyMap<string, Uint8Array>;
  readonly #moved = new MovedPeers();
  readonly #sessions = new WireguardSessions();
  #family: number | undefined;

  /** @param secrets undefined where WireGuard is not wanted: then devices can only be removed */
  constructor(generic: NetlinkSocket, secrets: WireguardSecrets | undefined) {
    this.#generic = generic;
    const { privateKey, presharedKey } = secrets ?? {};
    this.#privateKeys = new Map(privateKey && [[publicKeyOf(privateKey), privateKey]]);
    this.#presharedKeys = new Map(presharedKey && [[presharedKeyName(presharedKey), presharedKey]]);
  }

  read(link: string): ObservedWireguard {
    return this.#observed(link, readWireguard(this.#generic, this.#familyNumber(), link));
  }

  /** As read, and what is moved is judged anew: for who looks at even intervals. */
  look(link: string): ObservedWireguard {
    const device = readWireguard(this.#generic, this.#familyNumber(), link);
    this.#moved.look(link, device.peers.map(named));
    return this.#observed(link, device);
  }

  #observed(link: string, { publicKey, port, peers }: WireguardRecord): ObservedWireguard {
    const live = this.#sessions.live(link, peers.map(named));
    return {
      publicKey: publicKey === undefined ? '' : formatKey(publicKey),
      port,
      peers: peers.map(named).map((peer) => ({
        kind: 'wireguard-peer',
        link,
        publicKey: peer.publicKey,
        endpoint: peer.endpoint,
        allowedIPs: peer.allowedIPs.toSorted((a, b) => compareAddresses(a.address, b.address)),
        keepaliveSeconds: peer.keepaliveSeconds,
        presharedKey: peer.presharedKey && presharedKeyName(peer.presharedKey),
        ...(this.#moved.has({ link, publicKey: peer.publicKey })
          ? { moved: true }
          : live.has(peer.publicKey)
            ? { live: true }
            : {}),
      })),
    };
  }

  /** Makes the device, or gives one that is there its key, port and MTU. */
  put(socket: NetlinkSocket, device: WireguardLink, exists: boolean): void {
    const { link, mtuBytes, port } = device;
    const alias = aliasOf(device);
    const privateKey = this.#privateKeys.get(device.publicKey);
    if (privateKey === undefined) throw noSecret(`private key of ${device.publicKey}`);
    if (exists) socket.request(changeLinkRequest(link, { up: true, mtuBytes, alias }));
    else createWireguard(socket, { name: link, mtuBytes, alias });
    try {
      this.#generic.request(setWireguardRequest(this.#familyNumber(), link, { privateKey, port }));
    } catch (error) {
      if (!exists) deleteLink(socket, link);
      throw error;
    }
  }

  /** The message for a peer's step; to be sent with {@link batch}. */
  peerRequest(step: Step, peer: WireguardPeer): NetlinkRequest {
    const publicKey = parseKey(peer.publicKey);
    if (publicKey === undefined) {
      throw new AgentError('InvalidKey', `Cannot use public key ${peer.publicKey}`);
    }
    const family = this.#familyNumber();
    if (step.op === 'delete') return deleteWireguardPeerRequest(family, peer.link, publicKey);
    const name = peer.presharedKey;
    const presharedKey = name === undefined ? undefined : this.#presharedKeys.get(name);
    if (name !== undefined && presharedKey === undefined) throw noSecret(`preshared key ${name}`);
    this.#moved.told(peer);
    return putWireguardPeerRequest(family, peer.link, { ...peer, publicKey, presharedKey });
  }

  batch(requests: readonly NetlinkRequest[]): ReturnType<NetlinkSocket['batch']> {
    return this.#generic.batch(requests);
  }

  #familyNumber(): number {
    return (this.#family ??= wireguardFamily(this.#generic));
  }
}

/** By its key as people write it. */
function named(peer: WireguardPeerRecord): Omit<WireguardPeerRecord, 'publicKey'> & {
  readonly publicKey: string;
} {
  return { ...peer, publicKey: formatKey(peer.publicKey) };
}

function noSecret(what: string): AgentError {
  return new AgentError('KeyMissing', `Cannot set up WireGuard: this process has no ${what}`);
}

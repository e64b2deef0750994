/** What a node says over BGP and to whom, for whichever routing daemon speaks for it. */
import type { Address, Family } from '#pkg/ip/address.ts';
import type { Prefix } from '#pkg/ip/prefix.ts';

export interface BgpSpeaker {
  /** Of every node and reflector. */
  readonly asNumber: number;
  /** The node's BGP Identifier (RFC 6286): 32 bits that are no other's. */
  readonly identifier: Address;
  readonly families: readonly BgpFamily[];
}

export interface BgpFamily {
  readonly family: Family;
  readonly podCIDR: Prefix;
  /** Name of the link that carries traffic between nodes. */
  readonly link: string;
  /** The node's own address on it. */
  readonly local: Address;
  /** What is reached on it without a router, and what within that is reached another way. */
  readonly onLinkPrefixes: readonly Prefix[];
  readonly routedPrefixes: readonly Prefix[];
  readonly sessions: readonly BgpSession[];
}

export interface BgpSession {
  readonly neighbor: Address;
  readonly onLink: boolean;
  /** Hands on routes of others, whose next hops may be on our L2 or beyond a router. */
  readonly isReflector: boolean;
  /** Gets the routes of the others from us. */
  readonly isClient: boolean;
}

/** Routes that wrap packets themselves (lightweight tunnels, include/uapi/linux/lwtunnel.h). */
import { addressFromBytes, type Address } from '#pkg/ip/address.ts';
import {
  attributeAddress,
  attributeU16,
  nested,
  readNested,
  readU16,
  type Attributes,
} from './attribute.ts';
import {
  LWTUNNEL_ENCAP_IP6,
  LWTUNNEL_IP6_DST,
  LWTUNNEL_IP6_SRC,
  RTA_ENCAP,
  RTA_ENCAP_TYPE,
} from './constants.ts';

/** The addresses of outer packets, for a device that takes them from its routes. IPv6 only. */
export interface Encapsulation {
  readonly local: Address;
  readonly remote: Address;
}

/** What a route does to its packets, as attributes of the route; none for a plain route. */
export function encapAttributes(encap: Encapsulation | undefined): Uint8Array[] {
  if (encap === undefined) return [];
  return [
    attributeU16(RTA_ENCAP_TYPE, LWTUNNEL_ENCAP_IP6),
    nested(RTA_ENCAP, [
      attributeAddress(LWTUNNEL_IP6_DST, encap.remote),
      attributeAddress(LWTUNNEL_IP6_SRC, encap.local),
    ]),
  ];
}

/** Undefined for a route without, or with one of another kind. */
export function readEncapsulation(attributes: Attributes): Encapsulation | undefined {
  if (readU16(attributes.get(RTA_ENCAP_TYPE)) !== LWTUNNEL_ENCAP_IP6) return undefined;
  const encap = readNested(attributes.get(RTA_ENCAP));
  const local = readAddress(encap.get(LWTUNNEL_IP6_SRC));
  const remote = readAddress(encap.get(LWTUNNEL_IP6_DST));
  return local === undefined || remote === undefined ? undefined : { local, remote };
}

/** Undefined for what is no IP address. */
export function readAddress(bytes: Uint8Array | undefined): Address | undefined {
  return bytes?.byteLength === 4 || bytes?.byteLength === 16 ? addressFromBytes(bytes) : undefined;
}

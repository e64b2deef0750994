/**
 * Addresses as old API objects may spell them: Kubernetes up to 1.32 let IPv4 parts with leading
 * zeros through its validation ("172.30.0.041") and read them as decimal (KEP-4858).
 */
import { formatAddress, tryParseAddress, type Address } from '#pkg/ip/address.ts';
import { networkOf, tryParsePrefix, type Prefix } from '#pkg/ip/prefix.ts';

const leadingZeros = /(^|\.)0+(?=\d)/g;

/** The address, leading zeros of IPv4 parts ignored; undefined for text that is no address. */
export function addressFromApi(text: string): Address | undefined {
  return tryParseAddress(withoutLeadingZeros(text));
}

/** The canonical text of an address, or undefined for text that is no address. */
export function canonicalAddress(text: string): string | undefined {
  const address = addressFromApi(text);
  return address === undefined ? undefined : formatAddress(address);
}

/** The prefix with its host bits zero; blanks around it, which the API accepts, are ignored. */
export function prefixFromApi(text: string): Prefix | undefined {
  const prefix = tryParsePrefix(withoutLeadingZeros(text.trim()));
  return prefix === undefined ? undefined : networkOf(prefix);
}

/** "ip:port" as kube-proxy writes it in rules, comments and chain name hashes. */
export function formatEndpoint(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

function withoutLeadingZeros(text: string): string {
  return text.includes(':') ? text : text.replace(leadingZeros, '$1');
}

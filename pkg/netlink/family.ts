/** Address families in the kernel's numbers. */
import type { Family } from '#pkg/ip/address.ts';
import { AF_INET, AF_INET6, AF_UNSPEC } from './constants.ts';

/** AF_INET, AF_INET6; AF_UNSPEC (both) for undefined. */
export function familyNumber(family: Family | undefined): number {
  if (family === undefined) return AF_UNSPEC;
  return family === 'ip' ? AF_INET : AF_INET6;
}

/** The family of an AF_ number; undefined for those that are no IP. */
export function familyFromNumber(number: number | undefined): Family | undefined {
  if (number === AF_INET) return 'ip';
  return number === AF_INET6 ? 'ip6' : undefined;
}

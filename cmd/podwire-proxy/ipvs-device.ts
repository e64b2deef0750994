/** The device that makes Service addresses the host's own, so that IPVS gets their packets. */
import { isErrno } from '#pkg/errors/agent-error.ts';
import { formatAddress, parseAddress, type Address, type Family } from '#pkg/ip/address.ts';
import { containsAddress, hostPrefix, parsePrefix } from '#pkg/ip/prefix.ts';
import { addAddressRequest, deleteAddressRequest, listAddresses } from '#pkg/netlink/address.ts';
import { createDummy } from '#pkg/netlink/link-create.ts';
import { getLink, listLinks } from '#pkg/netlink/link.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { readSysctl, writeSysctl } from '#pkg/sysctl/sysctl.ts';

/** kube-proxy's name for it. */
const ipvsDevice = 'kube-ipvs0';

/**
 * Makes the device unless it is there, and returns its index.
 *
 * @throws {NetlinkError} EOPNOTSUPP where the kernel has no dummy devices
 */
export function ensureDevice(socket: NetlinkSocket): number {
  return (getLink(socket, ipvsDevice) ?? createDummy(socket, ipvsDevice)).index;
}

/** The addresses on the device. */
export function boundAddresses(socket: NetlinkSocket, family: Family): ReadonlySet<string> {
  const device = getLink(socket, ipvsDevice);
  if (device === undefined) return new Set();
  const found = addressesOn(socket, family, device.index);
  return new Set(found.map(formatAddress));
}

/**
 * The host's own addresses, on all other devices, sorted: without 127.0.0.0/8 and ::1, which are the
 * host's anyway, and those of fe80::/10, which each pod's device has. Asked device by device, since each change of a Service asks,
 * and the one for Services can have tens of thousands.
 */
export function ownAddresses(socket: NetlinkSocket, family: Family): readonly string[] {
  const own = new Set<string>();
  for (const { index, name } of listLinks(socket)) {
    if (name === ipvsDevice) continue;
    for (const address of addressesOn(socket, family, index)) {
      if (unreachable.some((range) => containsAddress(range, address))) continue;
      own.add(formatAddress(address));
    }
  }
  return [...own].toSorted();
}

/** None of a device that is gone by now, as a pod's may be. */
function addressesOn(socket: NetlinkSocket, family: Family, linkIndex: number): Address[] {
  try {
    return listAddresses(socket, { family, linkIndex }).map(({ prefix }) => prefix.address);
  } catch (error) {
    if (isErrno(error, 'ENODEV')) return [];
    throw error;
  }
}

const unreachable = ['127.0.0.0/8', '::1/128', 'fe80::/10'].map(parsePrefix);

/** Listeners of the host may be there, a DNS cache for one; node ports are not. */
export function isLinkLocal(address: string): boolean {
  return containsAddress(linkLocal, parseAddress(address));
}

const linkLocal = parsePrefix('169.254.0.0/16');

/**
 * Puts addresses on the device and takes others off, in one exchange with the kernel.
 *
 * @throws {AggregateError} of what the kernel refuses, after the rest is done
 */
export function changeAddresses(
  socket: NetlinkSocket,
  change: { readonly added: readonly string[]; readonly removed: readonly string[] },
): void {
  if (change.added.length + change.removed.length === 0) return;
  const linkIndex = ensureDevice(socket);
  if (change.added.some((text) => text.includes(':'))) allowIpv6();
  const prefixOf = (text: string) => hostPrefix(parseAddress(text));
  const results = socket.batch([
    ...change.added.map((text) =>
      addAddressRequest({ linkIndex, prefix: prefixOf(text), noDad: true }),
    ),
    ...change.removed.map((text) => deleteAddressRequest({ linkIndex, prefix: prefixOf(text) })),
  ]);
  const failures = results.flatMap(({ error }, i) => {
    // What is so already is no failure.
    const already = i < change.added.length ? 'EEXIST' : 'EADDRNOTAVAIL';
    return error === undefined || isErrno(error, already) ? [] : [error];
  });
  if (failures.length > 0) {
    throw new AggregateError(failures, `Cannot change addresses of ${ipvsDevice}`);
  }
}

/** For hosts that forbid IPv6 to new devices: this one is no way to anywhere. */
function allowIpv6(): void {
  const path = `net/ipv6/conf/${ipvsDevice}/disable_ipv6`;
  try {
    if (readSysctl(path) === '1') writeSysctl(path, '0');
  } catch {
    // A container may not write there. The kernel says of each address that it is refused.
  }
}

/**
 * Notices what others change in WireGuard devices: of peers and keys the kernel tells nobody, so
 * somebody has to look.
 */
import type { WireguardDriver } from '#pkg/host-network/rtnetlink-wireguard.ts';
import { describeObject } from '#pkg/host-network/object.ts';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { watchSilent, type RunningWatch, type SilentThing } from './silent-watch.ts';

export interface WireguardWatch extends Omit<SilentThing, 'read'> {
  /** Names of the devices, which may come and go. */
  readonly links: () => Iterable<string>;
  readonly driver: Pick<WireguardDriver, 'read'>;
}

/** Looks until disposed. */
export function watchWireguard({ links, driver, ...rest }: WireguardWatch): RunningWatch {
  const read = (): string => [...links()].map((link) => textOf(driver, link)).join('\n');
  return watchSilent({ ...rest, read });
}

/**
 * All that is ours alone to set; not when a peer was heard of last, and how much it has sent. The
 * kernel changes endpoints, too: a peer behind a NAT would cause a round with each new port.
 */
function textOf(driver: WireguardWatch['driver'], link: string): string {
  try {
    const { publicKey, port, peers } = driver.read(link);
    const lines = peers.map(
      (peer) =>
        `${describeObject({ ...peer, endpoint: undefined })} ` +
        `${peer.keepaliveSeconds} ${peer.presharedKey ?? ''}`,
    );
    return [`${link} ${port} ${publicKey}`, ...lines].join('\n');
  } catch (error) {
    // Deleted just now: the kernel does tell of devices.
    if (isErrno(error, 'ENODEV')) return link;
    throw error;
  }
}

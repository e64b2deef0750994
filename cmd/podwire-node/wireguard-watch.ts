/**
 * Notices what others change in WireGuard devices: of peers and keys the kernel tells nobody, so
 * somebody has to look.
 */
import type { WireguardDriver } from '#pkg/host-network/rtnetlink-wireguard.ts';
import { describeObject } from '#pkg/host-network/object.ts';
import { isErrno } from '#pkg/errors/agent-error.ts';

export interface WireguardWatch {
  /** Names of the devices, which may come and go. */
  readonly links: () => Iterable<string>;
  readonly driver: Pick<WireguardDriver, 'read'>;
  /** Something is not as it was at the last look; it may have been us. */
  readonly onChange: () => void;
  readonly onError: (error: unknown) => void;
}

/** How long a change may stay unnoticed, while a look costs little. */
const intervalMs = 1_000;

/** With thousands of peers looking takes its time: it may have a fiftieth of all. */
const shareOfTime = 1 / 50;

export interface RunningWatch extends Disposable {
  /** Carries out a write of ours: what it changes is not told. */
  exempt<T>(write: () => T): T;
}

/** Looks until disposed. */
export function watchWireguard(watch: WireguardWatch): RunningWatch {
  let before: string | undefined;
  let timer = setTimeout(look, intervalMs);

  function look(): void {
    const startMs = performance.now();
    try {
      const now = read();
      if (before !== undefined && now !== before) watch.onChange();
      before = now;
    } catch (error) {
      watch.onError(error);
    }
    const tookMs = performance.now() - startMs;
    timer = setTimeout(look, Math.max(intervalMs, tookMs / shareOfTime));
  }

  function read(): string {
    return [...watch.links()].map((link) => textOf(watch.driver, link)).join('\n');
  }

  return {
    exempt: (write) => {
      try {
        return write();
      } finally {
        // The next look takes things as it finds them.
        before = undefined;
      }
    },
    [Symbol.dispose]: () => clearTimeout(timer),
  };
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

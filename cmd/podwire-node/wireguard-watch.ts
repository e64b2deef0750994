/**
 * Notices what others change in WireGuard devices: of peers and keys the kernel tells nobody, so
 * somebody has to look.
 */
import type { WireguardDriver } from '#pkg/host-network/rtnetlink-wireguard.ts';
import { isErrno } from '#pkg/errors/agent-error.ts';
import type { WireguardLink } from '#pkg/host-network/device.ts';
import { describeObject, type WireguardPeer } from '#pkg/host-network/object.ts';
import type { Step } from '#pkg/host-network/step.ts';
import { watchSilent, type SilentThing } from './silent-watch.ts';

export interface WireguardWatch extends Omit<SilentThing, 'read'> {
  /** Names of the devices, which may come and go. */
  readonly links: () => Iterable<string>;
  readonly driver: Pick<WireguardDriver, 'look'>;
}

export interface RunningWireguardWatch extends Disposable {
  /** These are ours, and were carried out: what they change is not told. */
  wrote(steps: readonly Step[]): void;
}

/** Looks until disposed. */
export function watchWireguard({ links, driver, ...rest }: WireguardWatch): RunningWireguardWatch {
  const read = (): ReadonlyMap<string, string> =>
    new Map([...links()].flatMap((link) => textsOf(driver, link)));
  const watch = watchSilent({ ...rest, read });
  return {
    wrote: (steps) => {
      for (const { object, op } of steps) {
        if (object.kind !== 'wireguard' && object.kind !== 'wireguard-peer') continue;
        const [name, text] = object.kind === 'wireguard' ? deviceText(object) : peerText(object);
        watch.wrote(name, op === 'put' ? text : undefined);
      }
    },
    [Symbol.dispose]: () => watch[Symbol.dispose](),
  };
}

type Text = readonly [name: string, text: string];

/** All that is ours alone to set; not when a peer was heard of last, and how much it has sent. */
function textsOf(driver: WireguardWatch['driver'], link: string): readonly Text[] {
  try {
    const device = driver.look(link);
    return [deviceText({ link, ...device }), ...device.peers.map(peerText)];
  } catch (error) {
    // Deleted just now: the kernel does tell of devices.
    if (isErrno(error, 'ENODEV')) return [];
    throw error;
  }
}

function deviceText({
  link,
  port,
  publicKey,
}: Pick<WireguardLink, 'link' | 'port' | 'publicKey'>): Text {
  return [link, `${port} ${publicKey}`];
}

/**
 * Without the endpoint, which the kernel changes, too: a peer behind a NAT would cause a round with each
 * new port. But that somebody else has changed it.
 */
function peerText(peer: WireguardPeer): Text {
  const { keepaliveSeconds, link, moved = false, presharedKey = '', publicKey } = peer;
  const ranges = describeObject({ ...peer, endpoint: undefined });
  return [`${link} ${publicKey}`, `${ranges} ${keepaliveSeconds} ${presharedKey} ${moved}`];
}

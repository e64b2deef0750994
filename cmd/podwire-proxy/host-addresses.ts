/** Notices addresses of the host that come or go: node ports are to answer on them, or no more. */
import { isDeepStrictEqual } from 'node:util';
import { formatAddress } from '#pkg/ip/address.ts';
import type { KubeClient } from '#pkg/kube/client.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { watchKernel } from '#pkg/netlink/monitor.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import type { ProxyHost } from './host.ts';

export interface HostAddressesParts {
  /** The set of addresses is another one now. */
  readonly onChange: () => void;
  /** A connection from an address that is gone would be noticed only when it times out. */
  readonly client: Pick<KubeClient, 'dropFrom'>;
  readonly log: Logger;
}

/** Until disposed of. A kernel that tells nothing is no failure: each comparison looks anyway. */
export async function watchHostAddresses(
  host: Pick<ProxyHost, 'addresses'>,
  { client, log, onChange }: HostAddressesParts,
): Promise<Disposable> {
  const addresses = (): readonly string[] => [...new Set(host.addresses())].toSorted();
  let known = addresses();
  try {
    return watchKernel(await openSys(), ['address'], (change) => {
      if (change.kind === 'address' && change.deleted && change.address !== undefined) {
        client.dropFrom(formatAddress(change.address));
      }
      const now = addresses();
      if (isDeepStrictEqual(now, known)) return;
      log.info(
        {
          added: now.filter((address) => !known.includes(address)),
          removed: known.filter((address) => !now.includes(address)),
        },
        'Addresses of this host changed',
      );
      known = now;
      onChange();
    });
  } catch (err) {
    log.warn({ err }, 'Changes of host addresses will be noticed late');
    return { [Symbol.dispose]: () => undefined };
  }
}

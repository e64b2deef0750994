/** Writes Service ports of which the kernel refuses some: these are left out, the rest is served. */
import type { ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import { isolate } from './isolate.ts';
import type { ParkedPorts } from './parked-ports.ts';

/** Ports by key; undefined for those that are not to be served. */
export interface PortView {
  get(key: string): ProxiedPort | undefined;
}

export interface RefusedWrite {
  readonly ports: PortView;
  /** Keys of the ports one of which is refused. */
  readonly suspects: ReadonlySet<string>;
  /** What is served of them now: they stay so while it is found out which one it is. */
  readonly before: PortView;
  /** Writes what differs in the ports of these keys; rejects when anything is refused. */
  readonly attempt: (ports: PortView, keys: ReadonlySet<string>) => Promise<void>;
  /** Whether an error is the fault of what was attempted, and not of the moment. */
  readonly isFault: (error: unknown) => boolean;
  readonly parked: ParkedPorts;
}

/** So many bad ports in one write, and it is not them. */
const maxGuilty = 16;

/**
 * After it all but the refused ports are written, and those are parked.
 *
 * @throws what an attempt rejected with, when that is no fault of single ports
 */
export async function writeWithoutRefused(write: RefusedWrite): Promise<void> {
  const { attempt, before, isFault, parked, ports, suspects } = write;
  const held = new Map([...suspects].map((key) => [key, before.get(key)]));
  const view: PortView = { get: (key) => (held.has(key) ? held.get(key) : ports.get(key)) };
  await attempt(view, suspects);
  const admit = async (keys: readonly string[]): Promise<void> => {
    for (const key of keys) held.delete(key);
    try {
      await attempt(view, suspects);
    } catch (error) {
      for (const key of keys) held.set(key, before.get(key));
      throw error;
    }
  };
  const guilty = await isolate([...suspects], admit, { isFault, maxGuilty });
  for (const [key, error] of guilty) {
    held.set(key, undefined);
    parked.park(key, ports.get(key), error);
  }
  await attempt(view, suspects);
}

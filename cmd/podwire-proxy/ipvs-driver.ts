/** What ipvs mode asks of a node's kernel, and in which order it writes. */
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import type { ObservedIpSet } from '#pkg/ipset/ip-set.ts';
import type { IpSetStep, MemberChange } from '#pkg/ipset/plan.ts';
import type { Step } from '#pkg/iptables/plan.ts';
import type { IpvsPlan, IpvsStep } from '#pkg/ipvs/plan.ts';
import type { VirtualServer } from '#pkg/ipvs/virtual-server.ts';

/** The kernel calls of one family; `ipvs-mode.ts` has those of the host. */
export interface IpvsDriver {
  sets(signal: AbortSignal): Promise<ReadonlyMap<string, ObservedIpSet>>;
  servers(signal: AbortSignal): Promise<ReadonlyMap<string, VirtualServer>>;
  /** Of the real servers of these virtual servers, by both their keys. */
  connections(
    keys: ReadonlySet<string>,
    signal: AbortSignal,
  ): Promise<ReadonlyMap<string, ReadonlyMap<string, number>>>;
  /** On the device for Services. */
  boundAddresses(): ReadonlySet<string>;
  /** The host's own. */
  ownAddresses(): readonly string[];
  applySets(steps: readonly IpSetStep[], signal: AbortSignal): Promise<void>;
  applyServers(steps: readonly IpvsStep[], signal: AbortSignal): Promise<void>;
  applyAddresses(change: MemberChange): void;
}

/** One write, in data. */
export interface IpvsSteps {
  readonly servers: IpvsPlan;
  readonly sets: readonly IpSetStep[];
  readonly addresses: MemberChange;
  /** Writes the fixed rules; undefined = they are there. */
  readonly writeRules: (() => Promise<readonly Step[]>) | undefined;
}

/**
 * Virtual servers before packets are sent to them, and gone after nothing leads there. Addresses come
 * after the rest: before, packets to them do not come in at all. Those that go are first: without
 * their sets, listeners of the host would be open on them. Returns how many things were written.
 *
 * @throws what a call rejects with, the rest being left undone; {@link isIpvsRefusal} tells of which
 *   kind it is
 */
export async function applyInOrder(
  driver: IpvsDriver,
  { addresses, servers, sets, writeRules }: IpvsSteps,
  signal: AbortSignal,
): Promise<number> {
  await driver.applyServers(servers.puts, signal);
  const { added, removed } = addresses;
  applyAddresses(driver, { added: [], removed });
  await driver.applySets(sets, signal);
  const ruleSteps = (await writeRules?.()) ?? [];
  applyAddresses(driver, { added, removed: [] });
  await driver.applyServers(servers.deletions, signal);
  const counts = [servers.puts, servers.deletions, sets, ruleSteps];
  const changed = added.length + removed.length;
  return counts.reduce((sum, list) => sum + list.length, changed);
}

function applyAddresses(driver: IpvsDriver, addresses: MemberChange): void {
  try {
    driver.applyAddresses(addresses);
  } catch (cause) {
    const errors: readonly unknown[] = cause instanceof AggregateError ? cause.errors : [cause];
    // An address that no host can have, in the words of either family.
    const isSuch = (error: unknown) => isErrno(error, 'EINVAL') || isErrno(error, 'EADDRNOTAVAIL');
    if (!errors.some(isSuch)) throw cause;
    throw new AgentError('ServiceAddressRefused', 'Cannot serve addresses on this node', { cause });
  }
}

/** Whether the kernel or its programs did not take what a port is made of: not so with a time-out. */
export function isIpvsRefusal(error: unknown): boolean {
  return ['IpvsRestoreFailed', 'IpSetRestoreFailed', 'ServiceAddressRefused'].some(
    (code) => error instanceof AgentError && isErrno(error, code),
  );
}

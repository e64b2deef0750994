/**
 * Adds up what flows have carried, from looks at the kernel's table and from its word of flows that
 * ended. What a flow has carried is added to its accounts once, however often it is seen: accounts
 * only grow, which is what a counter must do.
 */
import type { CountedFlow } from '#pkg/netlink/conntrack-counters.ts';

/** What was carried: IP packets, and bytes with their headers, from clients and to them. */
export interface Traffic {
  readonly in: { readonly packets: number; readonly bytes: number };
  readonly out: { readonly packets: number; readonly bytes: number };
}

/** Where it is added up. */
export class TrafficAccount implements Traffic {
  readonly in = { packets: 0, bytes: 0 };
  readonly out = { packets: 0, bytes: 0 };
}

/** A flow, and what of it is in its accounts already. */
interface KnownFlow {
  readonly accounts: readonly TrafficAccount[];
  packetsIn: number;
  bytesIn: number;
  packetsOut: number;
  bytesOut: number;
  /** Number of the last look that showed it. */
  seen: number;
}

/**
 * A look may miss a flow that is there (the kernel rehashes its table meanwhile): it is forgotten
 * when this many in a row did. To forget one too early would count it a second time.
 */
const looksToForget = 3;

export class FlowTally {
  readonly #accountsOf: (flow: CountedFlow) => readonly TrafficAccount[];
  readonly #flows = new Map<number, KnownFlow>();
  /** During a look: those that ended since it began, which it may still show. */
  readonly #ended = new Set<number>();
  #looks = 0;
  #isLooking = false;

  /** @param accountsOf asked once for each flow; none for those that are nobody's */
  constructor(accountsOf: (flow: CountedFlow) => readonly TrafficAccount[]) {
    this.#accountsOf = accountsOf;
  }

  /** How many flows are remembered: those of accounts that the last looks showed. */
  get size(): number {
    return this.#flows.size;
  }

  /** Takes what a look or an event tells. */
  take(flow: CountedFlow): void {
    if (flow.ended) {
      if (this.#isLooking) this.#ended.add(flow.id);
      this.#add(flow, this.#flows.get(flow.id) ?? this.#begin(flow));
      this.#flows.delete(flow.id);
      return;
    }
    if (this.#ended.has(flow.id)) return;
    let known = this.#flows.get(flow.id);
    if (known === undefined) {
      known = this.#begin(flow);
      if (known.accounts.length === 0) return;
      this.#flows.set(flow.id, known);
    }
    this.#add(flow, known);
    known.seen = this.#looks;
  }

  /** The whole table follows. */
  beginLook(): void {
    this.#looks += 1;
    this.#isLooking = true;
  }

  /**
   * It has been told, and so has every event of before.
   *
   * @param whole nothing was left out: flows it does not show are gone, without a word of it
   */
  endLook(whole: boolean): void {
    this.#isLooking = false;
    this.#ended.clear();
    if (!whole) {
      // It says nothing of those it did not show.
      this.#looks -= 1;
      return;
    }
    for (const [id, { seen }] of this.#flows) {
      if (seen + looksToForget <= this.#looks) this.#flows.delete(id);
    }
  }

  #begin(flow: CountedFlow): KnownFlow {
    const nothing = { packetsIn: 0, bytesIn: 0, packetsOut: 0, bytesOut: 0 };
    return { accounts: this.#accountsOf(flow), ...nothing, seen: this.#looks };
  }

  #add(flow: CountedFlow, known: KnownFlow): void {
    const { bytesIn, bytesOut, packetsIn, packetsOut } = flow;
    // Somebody set the kernel's counters to zero (conntrack -Z): all there is has come since.
    const isReset = bytesIn < known.bytesIn || bytesOut < known.bytesOut;
    for (const account of known.accounts) {
      account.in.packets += packetsIn - (isReset ? 0 : known.packetsIn);
      account.in.bytes += bytesIn - (isReset ? 0 : known.bytesIn);
      account.out.packets += packetsOut - (isReset ? 0 : known.packetsOut);
      account.out.bytes += bytesOut - (isReset ? 0 : known.bytesOut);
    }
    known.packetsIn = packetsIn;
    known.bytesIn = bytesIn;
    known.packetsOut = packetsOut;
    known.bytesOut = bytesOut;
  }
}

/** Notices when somebody else changes our rules, so that what is deleted by hand comes back at once. */
import type { Family } from '#pkg/ip/address.ts';
import type { NftablesEvent } from '#pkg/nftables/events.ts';
import { pollNftables } from '#pkg/nftables/monitor.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import type { IptablesTool } from './detect.ts';
import { isKubeChain } from './ruleset.ts';

export interface IptablesWatch extends Disposable {
  /** Runs a write of ours, whose changes are not reported. One at a time. */
  exempt<T>(write: () => Promise<T>): Promise<T>;
}

/** include/uapi/linux/netfilter.h */
const families: ReadonlyMap<number, Family> = new Map([
  [2, 'ip'],
  [10, 'ip6'],
]);
const tables: ReadonlySet<string> = new Set(['filter', 'nat', 'mangle']);
const builtIn: ReadonlySet<string> = new Set([
  'PREROUTING',
  'INPUT',
  'FORWARD',
  'OUTPUT',
  'POSTROUTING',
]);

/** TASK_COMM_LEN - 1: what the kernel keeps of a program's name. */
const programNameLength = 15;

/**
 * Follows the nf_tables backend of iptables in the network namespace of the calling thread. Calls
 * `onChange` for a family in which others touched a KUBE- chain or deleted from a built-in one;
 * rules that they add there, as container runtimes do all day, are none of ours.
 *
 * @throws {AgentError} with the errno name, where the kernel does not tell of changes
 */
export function watchIptables(
  sys: Sys,
  tools: Iterable<IptablesTool>,
  onChange: (family: Family) => void,
): IptablesWatch {
  const ours = new Set([...tools].map((tool) => tool.restore.slice(0, programNameLength)));
  /** Of the transaction whose end has not come yet. */
  const open = new Set<Family>();
  const changed = new Set<Family>();
  let isWriting = false;

  function follow(event: NftablesEvent): void {
    switch (event.kind) {
      case 'change': {
        const family = familyConcerned(event);
        if (family !== undefined) open.add(family);
        return;
      }
      case 'end':
        // The process id would tell more, but in a container it is not the one that we know.
        if (!isWriting || !ours.has(event.program)) for (const family of open) changed.add(family);
        open.clear();
        return;
      case 'lost':
        for (const family of families.values()) changed.add(family);
        open.clear();
    }
  }

  function report(): void {
    const found = [...changed];
    changed.clear();
    for (const family of found) onChange(family);
  }

  const poll = pollNftables(sys, (events) => events.forEach(follow), report);
  return {
    exempt: async (write) => {
      poll.look();
      isWriting = true;
      try {
        return await write();
      } finally {
        poll.look();
        isWriting = false;
      }
    },
    [Symbol.dispose]: () => poll[Symbol.dispose](),
  };
}

/** The family whose rules of ours this change may have touched. */
function familyConcerned(
  change: Extract<NftablesEvent, { readonly kind: 'change' }>,
): Family | undefined {
  const { chain, isDeletion, table } = change;
  if (!tables.has(table)) return undefined;
  const concerns =
    chain === undefined ? isDeletion : isKubeChain(chain) || (isDeletion && builtIn.has(chain));
  return concerns ? families.get(change.family) : undefined;
}

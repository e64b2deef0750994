/** Notices when somebody else changes rules of ours, so that what is deleted comes back at once. */
import type { NftablesEvent } from '#pkg/nftables/events.ts';
import { pollNftables } from '#pkg/nftables/monitor.ts';
import type { Sys } from '#pkg/sys/sys.ts';

export interface TableWatch extends Disposable {
  /** Runs a write of ours, whose changes are not reported. One at a time. */
  exempt<T>(write: () => Promise<T>): Promise<T>;
}

export interface WatchedRules {
  readonly concerns: (change: Extract<NftablesEvent, { readonly kind: 'change' }>) => boolean;
  /** Names of the programs that write for us. */
  readonly programs: readonly string[];
}

/** TASK_COMM_LEN - 1: what the kernel keeps of a program's name. */
const programNameLength = 15;

/**
 * Calls `onChange` after changes that others made in nf_tables, iptables' own tables there included,
 * and when the kernel had to drop events. Works in the network namespace of the calling thread.
 */
export function watchRules(
  sys: Sys,
  { concerns, programs }: WatchedRules,
  onChange: () => void,
): TableWatch {
  const ours = new Set(programs.map((program) => program.slice(0, programNameLength)));
  let isWriting = false;
  /** In the transaction whose end has not come yet. */
  let isOpen = false;
  let changed = false;
  const poll = pollNftables(
    sys,
    (events) => {
      for (const event of events) {
        if (event.kind === 'change') isOpen ||= concerns(event);
        if (event.kind === 'lost') changed = true;
        // The process id would tell more, but in a container it is not the one that we know.
        if (event.kind === 'end') {
          if (isOpen && !(isWriting && ours.has(event.program))) changed = true;
          isOpen = false;
        }
      }
    },
    () => {
      if (!changed) return;
      changed = false;
      onChange();
    },
  );
  return {
    exempt: async (write) => {
      await poll.look();
      isWriting = true;
      try {
        return await write();
      } finally {
        await poll.look();
        isWriting = false;
      }
    },
    [Symbol.dispose]: () => poll[Symbol.dispose](),
  };
}

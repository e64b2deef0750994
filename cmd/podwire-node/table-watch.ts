/** Notices when somebody else changes our nftables table, so that what is deleted comes back at once. */
import { pollNftables } from '#pkg/nftables/monitor.ts';
import type { TableName } from '#pkg/nftables/ruleset.ts';
import type { Sys } from '#pkg/sys/sys.ts';

export interface TableWatch extends Disposable {
  /** Runs a write of ours by the program nft, whose changes are not reported. One at a time. */
  exempt<T>(write: () => Promise<T>): Promise<T>;
}

/**
 * Calls `onChange` after changes of the table that others made, and when the kernel had to drop
 * events. Works in the network namespace of the calling thread.
 */
export function watchTable(sys: Sys, { name }: TableName, onChange: () => void): TableWatch {
  let isWriting = false;
  /** In the transaction whose end has not come yet. */
  let isOpen = false;
  let changed = false;
  const poll = pollNftables(
    sys,
    (events) => {
      for (const event of events) {
        if (event.kind === 'change') isOpen ||= event.table === name;
        if (event.kind === 'lost') changed = true;
        // The process id would tell more, but in a container it is not the one that we know.
        if (event.kind === 'end') {
          if (isOpen && !(isWriting && event.program === 'nft')) changed = true;
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

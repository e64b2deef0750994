/** Notices when somebody else changes our rules, so that what is deleted by hand comes back at once. */
import type { Family } from '#pkg/ip/address.ts';
import { openNetfilterSocket } from '#pkg/nfnetlink/nf-tables.ts';
import { readGeneration } from '#pkg/nfnetlink/table-structure.ts';
import { pollNftables } from '#pkg/nftables/monitor.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import type { IptablesTool } from './detect.ts';
import { ForeignChanges } from './foreign-changes.ts';

export interface IptablesWatch extends Disposable {
  /**
   * Runs a write of ours, whose changes are not reported. One at a time.
   *
   * @param write resolves to how many transactions it made
   */
  exempt(write: () => Promise<number>): Promise<void>;
}

/** TASK_COMM_LEN - 1: what the kernel keeps of a program's name. */
const programNameLength = 15;

/**
 * Follows the nf_tables backend of iptables in the network namespace of the calling thread. Calls
 * `onChange` for a family in which others touched a KUBE- chain or deleted a rule that led to one;
 * other rules in built-in chains, which container runtimes add and delete all day, are none of ours.
 *
 * @throws {AgentError} with the errno name, where the kernel does not tell of changes
 */
export function watchIptables(
  sys: Sys,
  tools: Iterable<IptablesTool>,
  onChange: (family: Family) => void,
): IptablesWatch {
  using opened = new DisposableStack();
  const socket = opened.use(openNetfilterSocket(sys));
  const changes = new ForeignChanges({
    programs: new Set([...tools].map((tool) => tool.restore.slice(0, programNameLength))),
    generation: () => {
      try {
        return readGeneration(socket);
      } catch {
        return undefined;
      }
    },
  });
  const report = (): void => changes.take().forEach(onChange);
  const poll = opened.use(
    pollNftables(sys, (events) => events.forEach((event) => changes.follow(event)), report),
  );
  const running = opened.move();
  return {
    exempt: async (write) => {
      await poll.look();
      changes.begin();
      let transactions: number | undefined;
      try {
        transactions = await write();
      } finally {
        await poll.look();
        changes.end(transactions);
        report();
      }
    },
    [Symbol.dispose]: () => running.dispose(),
  };
}

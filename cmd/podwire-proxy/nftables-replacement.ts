/** A family's table as one script, for when its structure is another: then all of it is replaced. */
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import { renderSteps } from '#pkg/nftables/render.ts';
import { proxySkeleton } from '#pkg/proxy/nftables-base.ts';
import { ElementBook, type ElementChange } from '#pkg/proxy/nftables-book.ts';
import { chainOf } from '#pkg/proxy/nftables-elements.ts';
import type { NftablesOptions } from '#pkg/proxy/nftables-options.ts';
import { reconcile, type PortSource, type SetContents } from '#pkg/proxy/nftables-reconcile.ts';
import { fillTable } from '#pkg/proxy/nftables-ruleset.ts';
import { inSlices } from '#pkg/reconcile/slices.ts';
import { isolate } from './isolate.ts';

export interface Replacement {
  /** Takes the old table away and brings the new one, in one transaction. */
  readonly script: string;
  /** What the new table has then. */
  readonly contents: SetContents;
  /** Elements that lead to chains that nft cannot read: to be written afterwards. */
  readonly later: readonly ElementChange[];
  /** Elements in the script. */
  readonly written: number;
}

/** Fills an empty book. */
export async function replacementOf(book: ElementBook, ports: PortSource): Promise<Replacement> {
  const contents = new Map<string, Map<string, string>>();
  const later: ElementChange[] = [];
  let written = 0;
  await inSlices(reconcile(book, ports, new Map()), (unit) => {
    for (const change of unit) {
      const { set, key, new: value } = change;
      if (value === undefined) continue;
      if (chainOf({ value }) !== undefined) {
        later.push(change);
        continue;
      }
      let elements = contents.get(set);
      if (elements === undefined) contents.set(set, (elements = new Map<string, string>()));
      elements.set(key, value);
      written += 1;
    }
  });
  const table = fillTable(proxySkeleton(book.options, []), contents);
  return { script: renderSteps([{ op: 'replaceTable', table }]), contents, later, written };
}

/** A whole table was refused; its cause says with what words. */
export class RefusedReplacement extends AgentError {
  constructor(cause: unknown) {
    super('TableRefused', 'Cannot replace the nftables table: something in it is refused', {
      cause,
    });
  }
}

/** Whether an error says that nft or the kernel refuses something of a script. */
export function isScriptRefusal(error: unknown): boolean {
  return isErrno(error, 'CommandFailed');
}

/** So many bad ports in one table, and it is not them. */
const maxGuilty = 16;

/**
 * The ports for which a replacement is refused, each with why. Asks with parts of the table, and
 * changes nothing: the old table serves meanwhile.
 *
 * @param refusal what the whole replacement was refused with
 * @param check asks whether a script would be taken, and rejects when not
 * @throws `refusal` when it is no fault of single ports
 */
export async function refusedPorts(
  refusal: unknown,
  { options, ports }: { readonly options: NftablesOptions; readonly ports: PortSource },
  check: (script: string) => Promise<void>,
): Promise<ReadonlyMap<string, unknown>> {
  const all = [...ports.keys()].filter((key) => ports.get(key) !== undefined);
  const attempt = async (keys: readonly string[]): Promise<void> => {
    if (keys.length === all.length) throw refusal;
    const some: PortSource = { get: (key) => ports.get(key), keys: () => keys };
    await check((await replacementOf(new ElementBook(options), some)).script);
  };
  // Not even a table without ports is taken: then it is none of them.
  await attempt([]).catch(() => {
    throw refusal;
  });
  const guilty = await isolate(all, attempt, { isFault: isScriptRefusal, maxGuilty });
  if (guilty.size === 0) throw refusal;
  return guilty;
}

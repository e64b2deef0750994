/** Reads the kernel's present rules through `iptables-save`. */
import type { IptablesTool } from './detect.ts';
import { partsInSlices } from '#pkg/reconcile/slices.ts';
import { parseInParts } from './parse.ts';
import type { ObservedRuleset, ObservedTable, TableName } from './ruleset.ts';

/** A busy node needs a minute for 20,000 Services. */
const saveTimeoutMs = 180_000;

const tables: readonly TableName[] = ['filter', 'nat', 'mangle'];

/**
 * The chains of the KUBE- family and the jumps to them, table by table: other tables of the host
 * can be large, or written by a newer tool in a form this one cannot print.
 *
 * @throws {AgentError} CommandFailed when the tool cannot list a table
 */
export async function observeIptables(
  tool: IptablesTool,
  signal: AbortSignal,
): Promise<ObservedRuleset> {
  // At once: iptables-nft-save reads the chains of all tables each time, which is most of its work.
  const texts = await Promise.all(
    tables.map((name) => tool.run(tool.save, ['-t', name], { timeoutMs: saveTimeoutMs, signal })),
  );
  const observed: ObservedTable[] = [];
  for (const [i, name] of tables.entries()) {
    observed.push(await partsInSlices(parseInParts(texts[i]?.stdout ?? '', name)));
  }
  return { family: tool.family, tables: observed };
}

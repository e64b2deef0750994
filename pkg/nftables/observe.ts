/** Reads tables of ours back from the kernel, by `nft -j` (libnftables-json(5)). */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { parseTable } from './listing.ts';
import { sameTable, type ObservedTable, type TableFamily, type TableName } from './ruleset.ts';

/** Runs nft with these arguments and input; resolves with its standard output. */
export type NftCommand = (
  args: readonly string[],
  input: string | undefined,
  signal: AbortSignal,
) => Promise<string>;

/**
 * Those of `names` that exist, in full. Costs one process and one more per table found: for start,
 * errors and suspected drift, not for the hot path.
 */
export async function observeNftables(
  nft: NftCommand,
  names: readonly TableName[],
  signal: AbortSignal,
): Promise<readonly ObservedTable[]> {
  // The list of tables first: a table that is not there is no error, and nft has no code for it.
  const existing = parseTableNames(await nft(['-j', 'list', 'tables'], undefined, signal));
  const found: ObservedTable[] = [];
  for (const name of names) {
    if (!existing.some((other) => sameTable(other, name))) continue;
    const args = ['-j', 'list', 'table', name.family, name.name];
    found.push(parseTable(name, parseJson(await nft(args, undefined, signal))));
  }
  return found;
}

function parseTableNames(text: string): readonly TableName[] {
  return parseJson(text).flatMap((item): TableName[] => {
    const table = item['table'] as { family?: unknown; name?: unknown } | undefined;
    if (typeof table?.family !== 'string' || typeof table.name !== 'string') return [];
    return [{ family: table.family as TableFamily, name: table.name }];
  });
}

function parseJson(text: string): readonly Readonly<Record<string, unknown>>[] {
  try {
    const root = JSON.parse(text) as { readonly nftables?: unknown };
    if (Array.isArray(root.nftables)) return root.nftables;
  } catch (cause) {
    throw new AgentError('UnreadableListing', 'Cannot read nft listing: expected JSON', { cause });
  }
  throw new AgentError('UnreadableListing', 'Cannot read nft listing: no member "nftables"');
}

/** A table of nftables whose rules carry comments: read as JSON, changed in one transaction. */
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { RunNetfilter } from './run-netfilter.ts';

/** One rule as nft lists it. */
export interface NftRule {
  readonly chain: string;
  /** The kernel's number for it, to delete it by. */
  readonly handle: number;
  readonly comment: string;
  /** Matches and statements in nft's JSON (libnftables-json(5)). */
  readonly expressions: readonly unknown[];
}

export interface NftTarget {
  readonly run: RunNetfilter;
  readonly family: Family | 'inet' | 'bridge';
  readonly table: string;
}

/** Somebody else may delete a rule between reading and writing. */
const maxAttempts = 3;

/**
 * Reads the table's rules, none when there is no table, and makes the changes that `plan` answers
 * with: lines of nft, all carried out or none. No lines change nothing.
 *
 * @throws {AgentError} CommandMissing, CommandFailed; what `plan` throws
 */
export function updateNftTable(
  target: NftTarget,
  plan: (rules: readonly NftRule[]) => readonly string[],
): void {
  for (let attempt = 1; ; attempt++) {
    const lines = plan(readNftTable(target));
    if (lines.length === 0) return;
    try {
      target.run('nft', ['-f', '-'], `${lines.join('\n')}\n`);
      return;
    } catch (error) {
      if (attempt === maxAttempts || !isErrno(error, 'CommandFailed')) throw error;
    }
  }
}

/** @throws {AgentError} CommandMissing, CommandFailed */
export function readNftTable({ run, family, table }: NftTarget): readonly NftRule[] {
  try {
    return parseNftRules(run('nft', ['-j', '-n', 'list', 'table', family, table]));
  } catch (error) {
    const text = error instanceof AgentError ? String(error.details?.['stderr']) : '';
    if (text.includes('No such file or directory')) return [];
    throw error;
  }
}

/** Lines that delete rules. */
export function deleteNftRules(
  { family, table }: Pick<NftTarget, 'family' | 'table'>,
  rules: readonly NftRule[],
): string[] {
  return rules.map(
    ({ chain, handle }) => `delete rule ${family} ${table} ${chain} handle ${handle}`,
  );
}

/** @throws {AgentError} UnreadableListing */
function parseNftRules(text: string): readonly NftRule[] {
  const json: unknown = JSON.parse(text);
  const items = isRecord(json) ? json['nftables'] : undefined;
  if (!Array.isArray(items)) {
    throw new AgentError(
      'UnreadableListing',
      'Cannot read the listing of nft: no "nftables" in it',
    );
  }
  return items.flatMap((item: unknown) => {
    const rule = isRecord(item) ? item['rule'] : undefined;
    if (!isRecord(rule)) return [];
    const { chain, handle, comment, expr } = rule;
    return [
      {
        chain: String(chain),
        handle: Number(handle),
        comment: typeof comment === 'string' ? comment : '',
        expressions: Array.isArray(expr) ? expr : [],
      },
    ];
  });
}

/** A JSON object. */
export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

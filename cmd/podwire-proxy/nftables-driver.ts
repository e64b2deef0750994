/**
 * One family's table in the kernel: structure by the program nft, elements by netlink. A child
 * process costs milliseconds and a CPU's attention; a netlink transaction a fraction of one.
 */
import type { Family } from '#pkg/ip/address.ts';
import type { TextElement } from '#pkg/nfnetlink/element-list.ts';
import { elementLayout, type ElementLayout } from '#pkg/nfnetlink/element-text.ts';
import { addRememberChain } from '#pkg/nfnetlink/remember-chain.ts';
import {
  editElements,
  forgetElements,
  readElements,
  type SetEdit,
  type TransactionSize,
} from '#pkg/nfnetlink/table-elements.ts';
import { readStructure, type TableStructure } from '#pkg/nfnetlink/table-structure.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';
import type { NftCommand } from '#pkg/nftables/observe.ts';
import { ruleMark } from '#pkg/nftables/ruleset.ts';
import type { OnDemandChain } from '#pkg/proxy/nftables-affinity.ts';
import type { ElementChange } from '#pkg/proxy/nftables-book.ts';
import { affinityMap, proxyMaps, proxySets, proxyTableName } from '#pkg/proxy/nftables-sets.ts';
import type { Generations } from './nftables-generations.ts';

export interface NftablesDriver {
  /** Undefined when there is no table. */
  structure(): TableStructure | undefined;
  /** Runs a script of nft as one transaction. */
  load(script: string, signal: AbortSignal): Promise<void>;
  /** Rejects with CommandFailed when nft or the kernel would refuse a script; changes nothing. */
  check(script: string, signal: AbortSignal): Promise<void>;
  /** Adds a chain that is not there yet. */
  addChain(chain: OnDemandChain): void;
  /**
   * Changes elements in one transaction.
   *
   * @throws {NetlinkError} when the table is not what the changes expect; then nothing is changed
   */
  edit(changes: readonly ElementChange[]): TransactionSize;
  /** A set's elements in parts; nothing else may be asked until the last. */
  read(set: string): Generator<readonly TextElement[], void, undefined>;
  /** Deletes remembered clients; those that are gone are none to worry about. */
  forget(clients: readonly string[]): void;
}

export interface NftablesAccess {
  /** For this driver alone: it reads in turns with others. */
  readonly socket: NetlinkSocket;
  readonly nft: NftCommand;
  readonly generations: Generations;
}

export function createNftablesDriver(
  family: Family,
  { generations, nft, socket }: NftablesAccess,
): NftablesDriver {
  const table = { family, table: proxyTableName };
  const layouts = new Map<string, ElementLayout>([
    // All that there may be, whatever is counted now.
    ...proxySets(family, 'endpoints').map(
      ({ name, type }) => [name, elementLayout(type, undefined)] as const,
    ),
    ...proxyMaps(family).map(
      ({ name, type, valueType }) => [name, elementLayout(type, valueType)] as const,
    ),
  ]);
  const layoutOf = (set: string): ElementLayout => {
    const layout = layouts.get(set);
    // Names are a type: only a mistake in this program comes here.
    if (layout === undefined) throw new TypeError(`Cannot find set ${set}: not declared`);
    return layout;
  };
  return {
    structure: () => readStructure(socket, table),
    load: async (script, signal) => {
      await nft(['-f', '-'], script, signal);
      generations.madeOne();
    },
    check: async (script, signal) => void (await nft(['--check', '-f', '-'], script, signal)),
    addChain: ({ name, seconds, rules: [rule] }) => {
      const comment = `${rule.why} ${ruleMark(rule)}`;
      addRememberChain(socket, { ...table, chain: name, map: affinityMap, seconds, comment });
      generations.madeOne();
    },
    edit: (changes) => {
      const size = editElements(socket, table, editsOf(changes, layoutOf));
      generations.madeOne();
      return size;
    },
    read: (set) => readElements(socket, { ...table, set, layout: layoutOf(set) }),
    forget: (clients) => {
      forgetElements(
        socket,
        { ...table, set: affinityMap, layout: layoutOf(affinityMap) },
        clients,
      );
    },
  };
}

function editsOf(
  changes: readonly ElementChange[],
  layoutOf: (set: string) => ElementLayout,
): SetEdit[] {
  const edits = new Map<string, { deletes: TextElement[]; adds: TextElement[] }>();
  for (const change of changes) {
    let edit = edits.get(change.set);
    if (edit === undefined) edits.set(change.set, (edit = { deletes: [], adds: [] }));
    if (change.old !== undefined) edit.deletes.push({ key: change.key, value: undefined });
    if (change.new !== undefined) {
      edit.adds.push({ key: change.key, value: change.new === '' ? undefined : change.new });
    }
  }
  return [...edits].map(([set, edit]) => ({ set, layout: layoutOf(set), ...edit }));
}

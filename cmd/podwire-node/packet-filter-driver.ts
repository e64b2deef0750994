/** Keeps what the pod network needs in iptables, as far as the machine has it. */
import { isDeepStrictEqual } from 'node:util';
import { AgentError, isErrno, messageOf } from '#pkg/errors/agent-error.ts';
import { applyIptables } from '#pkg/iptables/apply.ts';
import { detectIptables, type CommandRunner, type IptablesTool } from '#pkg/iptables/detect.ts';
import { parseSave } from '#pkg/iptables/parse.ts';
import type { Step } from '#pkg/iptables/plan.ts';
import { probeIptables } from '#pkg/iptables/probe.ts';
import type { ObservedRuleset, Ruleset, TableName } from '#pkg/iptables/ruleset.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { isPodChain, planPacketFilter } from '#pkg/pod-network/packet-filter.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { watchRules, type TableWatch } from './table-watch.ts';

export interface PacketFilterDriver extends Disposable {
  /** Brings both families to these; resolves to what was done. Reads only what is in doubt. */
  converge(want: readonly Ruleset[], signal: AbortSignal): Promise<readonly Step[]>;
  /** What the kernel has is to be read again. */
  doubt(): void;
}

export interface PacketFilterParts {
  readonly run: CommandRunner;
  readonly sys: Sys;
  readonly log: Logger;
  /** Others have changed rules of ours. */
  readonly onChange: () => void;
}

const tables: readonly TableName[] = ['filter', 'nat'];
const jumpedFrom: ReadonlySet<string> = new Set(['FORWARD', 'POSTROUTING']);

/** The legacy filter tells nobody of changes: it is asked as often, by one command a family. */
const probeMs = 2_000;

export class IptablesDriver implements PacketFilterDriver {
  readonly #parts: PacketFilterParts;
  #tools: ReadonlyMap<Family, IptablesTool> | undefined;
  /** By family what the kernel is known to hold. */
  readonly #known = new Map<Family, Ruleset>();
  /** How often it was put in doubt: what was read before a doubt is not known after it. */
  #doubts = 0;
  #watch: TableWatch | undefined;
  #probing: NodeJS.Timeout | undefined;

  constructor(parts: PacketFilterParts) {
    this.#parts = parts;
  }

  doubt(): void {
    this.#known.clear();
    this.#doubts += 1;
  }

  async converge(want: readonly Ruleset[], signal: AbortSignal): Promise<readonly Step[]> {
    const tools = (this.#tools ??= await this.#detect(signal));
    const done: Step[] = [];
    for (const ruleset of want) {
      const tool = tools.get(ruleset.family);
      if (tool === undefined) {
        if (ruleset.tables.some(({ name }) => name === 'nat')) throw noProgram(ruleset.family);
        continue;
      }
      if (isDeepStrictEqual(this.#known.get(ruleset.family), ruleset)) continue;
      this.#known.delete(ruleset.family);
      const doubts = this.#doubts;
      const steps = planPacketFilter(ruleset, await observe(tool, signal));
      const write = (): Promise<number> => applyIptables(tool, steps, signal);
      if (steps.length > 0) await (this.#watch?.exempt(write) ?? write());
      if (doubts === this.#doubts) this.#known.set(ruleset.family, ruleset);
      done.push(...steps);
    }
    return done;
  }

  [Symbol.dispose](): void {
    this.#watch?.[Symbol.dispose]();
    clearInterval(this.#probing);
  }

  async #detect(signal: AbortSignal): Promise<ReadonlyMap<Family, IptablesTool>> {
    const { log, run } = this.#parts;
    try {
      const { tools } = await detectIptables(run, signal);
      this.#follow(tools, signal);
      return tools;
    } catch (error) {
      if (!isErrno(error, 'CommandMissing')) throw error;
      log.info({ reason: messageOf(error) }, 'No rules in iptables');
      return new Map();
    }
  }

  #follow(tools: ReadonlyMap<Family, IptablesTool>, signal: AbortSignal): void {
    const { onChange, sys } = this.#parts;
    const changed = (): void => {
      this.doubt();
      onChange();
    };
    const [tool] = tools.values();
    if (tool?.backend === 'nf_tables') {
      const programs = [...tools.values()].map(({ restore }) => restore);
      const concerns: Parameters<typeof watchRules>[1]['concerns'] = (change) => {
        if (!tables.some((table) => table === change.table)) return false;
        const { chain, isDeletion } = change;
        if (chain === undefined) return isDeletion;
        return isPodChain(chain) || (isDeletion && jumpedFrom.has(chain));
      };
      this.#watch = watchRules(sys, { concerns, programs }, changed);
    } else if (tool !== undefined) {
      let isBusy = false;
      this.#probing = setInterval(() => {
        if (isBusy || signal.aborted) return;
        isBusy = true;
        void this.#isIntact(tools, signal)
          .then((isIntact) => (isIntact ? undefined : changed()))
          .catch(() => undefined)
          .finally(() => (isBusy = false));
      }, probeMs);
    }
  }

  async #isIntact(tools: ReadonlyMap<Family, IptablesTool>, signal: AbortSignal): Promise<boolean> {
    for (const [family, ruleset] of this.#known) {
      const tool = tools.get(family);
      if (tool === undefined || ruleset.tables.length === 0) continue;
      if (!(await probeIptables(tool, ruleset, signal))) return false;
    }
    return true;
  }
}

async function observe(tool: IptablesTool, signal: AbortSignal): Promise<ObservedRuleset> {
  const observed = [];
  for (const name of tables) {
    const { stdout } = await tool.run(tool.save, ['-t', name], { timeoutMs: 60_000, signal });
    observed.push(parseSave(stdout, name, isPodChain));
  }
  return { family: tool.family, tables: observed };
}

function noProgram(family: Family): AgentError {
  const name = family === 'ip' ? 'iptables' : 'ip6tables';
  return new AgentError(
    'NoPacketFilter',
    `Cannot masquerade pod traffic: there is no program nft, and ${name} is missing or has no nat table here; install the package nftables, or set masquerade: false`,
  );
}

/** iptables without a kernel: reads restore text, answers as save would. */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { parseSave } from '#pkg/iptables/parse.ts';
import { renderRestore } from '#pkg/iptables/render.ts';
import type { ObservedRuleset } from '#pkg/iptables/ruleset.ts';
import type { RulesDriver } from '#cmd/podwire-proxy/rules-writer.ts';

const tables = ['filter', 'nat', 'mangle'] as const;

export class FakeIptables implements RulesDriver {
  readonly calls: ('observe' | 'apply')[] = [];
  /** The text of each apply. */
  readonly inputs: string[] = [];
  /** Which call fails, counted from 0. */
  failAt = -1;
  /** Rules it does not take. */
  refuses: (rule: string) => boolean = () => false;
  /** Called before each call, which is counted after it. */
  before: (call: string) => void | Promise<void> = () => undefined;
  /** How it spells a rule that was given. */
  print = (rule: string): string => rule;
  /** Table -> chain -> rules. */
  kernel = new Map(tables.map((t) => [t, new Map<string, string[]>()]));

  async observe(): Promise<ObservedRuleset> {
    await this.#call('observe');
    const text = this.saved().join('\n');
    return { family: 'ip', tables: tables.map((name) => parseSave(text, name)) };
  }

  /** Lines as iptables-save prints them; chains sorted. */
  saved(): string[] {
    const policy = (chain: string): string => (chain.startsWith('KUBE-') ? '-' : 'ACCEPT');
    return tables.flatMap((name) => {
      const chains = [...(this.kernel.get(name) ?? [])].toSorted(([a], [b]) => (a < b ? -1 : 1));
      return [
        `*${name}`,
        ...chains.map(([chain]) => `:${chain} ${policy(chain)} [0:0]`),
        ...chains.flatMap(([chain, rules]) => rules.map((r) => `-A ${chain} ${this.print(r)}`)),
        'COMMIT',
      ];
    });
  }

  async apply(steps: Parameters<RulesDriver['apply']>[0]): Promise<void> {
    if (steps.length === 0) return;
    await this.#call('apply');
    const input = renderRestore(steps);
    this.inputs.push(input);
    // Each table is a transaction of its own.
    for (const text of input.split('COMMIT\n')) this.#commit(text.split('\n'));
  }

  /** Empties all chains. */
  flush(): void {
    for (const chains of this.kernel.values())
      for (const rules of chains.values()) rules.length = 0;
  }

  /** How many rules there are. */
  count(): number {
    return [...this.kernel.values()].flatMap((chains) => [...chains.values()].flat()).length;
  }

  #commit(lines: readonly string[]): void {
    const name = tables.find((table) => lines[0] === `*${table}`);
    if (name === undefined) return;
    const table = new Map(this.kernel.get(name));
    // Lists of this transaction: the others must stay as they are when it fails.
    const added = new Set<string[]>();
    const own = (rules: string[]): string[] => (added.add(rules), rules);
    for (const [number, line] of lines.entries()) {
      const [, op, chain = '', rule = ''] = /^(:|-[AIDX] )(\S+) ?(.*)$/.exec(line) ?? [];
      const rules = table.get(chain) ?? [];
      if (op === ':') table.set(chain, own([]));
      else if (op === '-A ' || op === '-I ') {
        if (this.refuses(rule)) throw refused(number + 1, line);
        if (op === '-I ') table.set(chain, [rule, ...rules]);
        else if (added.has(rules)) rules.push(rule);
        else table.set(chain, own([...rules, rule]));
      } else if (op === '-D ') {
        const at = rules.map(this.print).indexOf(this.print(rule));
        if (at < 0) throw refused(number + 1, line);
        table.set(chain, rules.toSpliced(at, 1));
      } else if (op === '-X ') {
        const isHeld = [...table.values()].flat().some((r) => r.endsWith(`-j ${chain}`));
        if (isHeld || rules.length > 0) throw refused(number + 1, line);
        table.delete(chain);
      }
    }
    this.kernel.set(name, table);
  }

  async #call(name: 'observe' | 'apply'): Promise<void> {
    await this.before(name);
    this.calls.push(name);
    if (this.calls.length - 1 === this.failAt) throw new Error(`${name} fails`);
  }
}

function refused(line: number, text: string): AgentError {
  return new AgentError('IptablesRestoreFailed', `Cannot write rules at line ${line}: ${text}`, {
    details: { near: [text] },
  });
}

/**
 * A kernel in memory that does what steps of mode ipvs say, line by line as the programs do, writes
 * down in which order, and refuses, fails or dies on demand.
 */
import { expect } from 'vitest';
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { ObservedIpSet } from '#pkg/ipset/ip-set.ts';
import { parseIpSetSave } from '#pkg/ipset/parse.ts';
import type { IpSetStep, MemberChange } from '#pkg/ipset/plan.ts';
import { renderIpSetRestore } from '#pkg/ipset/render.ts';
import type { IpvsStep } from '#pkg/ipvs/plan.ts';
import { renderIpvsRestore, renderVirtualServers } from '#pkg/ipvs/render.ts';
import { serverKey, type VirtualServer } from '#pkg/ipvs/virtual-server.ts';
import type { IpvsDriver } from '#cmd/podwire-proxy/ipvs-driver.ts';

interface FakeSet {
  /** "hash:ip,port family inet maxelem 65536" */
  kind: string;
  members: Set<string>;
}

export class FakeIpvsKernel implements IpvsDriver {
  readonly bound = new Set<string>();
  readonly lines: string[] = [];
  /** By "address:port", of each virtual server. */
  readonly connectionsOf = new Map<string, number>();
  connectionsAsked = 0;
  /** The next call of this name fails. */
  failing: string | undefined;
  /** What happens while it is read. */
  onRead: (() => Promise<void>) | undefined;
  /** Lines with this in them are refused, as the kernel would: those before stay. */
  refused: RegExp | undefined;
  /** How it refuses an address. */
  addressRefusal: 'EINVAL' | 'EADDRNOTAVAIL' = 'EINVAL';
  /** How often it was asked for what it refuses. */
  refusals = 0;
  /** After so many lines the caller is killed. */
  linesToLive = Number.POSITIVE_INFINITY;
  readonly #servers = new Map<string, VirtualServer>();
  readonly #sets = new Map<string, FakeSet>();

  sets = async (): Promise<ReadonlyMap<string, ObservedIpSet>> => {
    this.#call('sets');
    return parseIpSetSave(this.savedSets().join('\n'), 'KUBE-');
  };
  servers = async (): Promise<ReadonlyMap<string, VirtualServer>> => {
    this.#call('servers');
    await this.onRead?.();
    return new Map(this.#servers);
  };
  connections = async (
    keys: ReadonlySet<string>,
  ): Promise<ReadonlyMap<string, ReadonlyMap<string, number>>> => {
    this.#call('connections');
    this.connectionsAsked += 1;
    for (const key of keys) expect(this.#servers.has(key)).toBe(true);
    return new Map([...keys].map((key) => [key, this.connectionsOf]));
  };
  boundAddresses = (): ReadonlySet<string> => new Set(this.bound);
  ownAddresses = (): readonly string[] => ['192.168.0.2'];
  applySets = async (steps: readonly IpSetStep[]): Promise<void> => {
    if (steps.length === 0) return;
    this.#call('applySets');
    for (const line of renderIpSetRestore(steps).trim().split('\n')) {
      this.#refuse('IpSetRestoreFailed', line);
      this.#restoreSetLine(line);
      this.#done(`ipset ${line}`);
    }
  };
  applyServers = async (steps: readonly IpvsStep[]): Promise<void> => {
    if (steps.length === 0) return;
    this.#call('applyServers');
    // ipvsadm goes on after a line that is refused.
    let refusal: Error | undefined;
    for (const step of steps) {
      const line = renderIpvsRestore([step]).trim();
      try {
        this.#refuse('IpvsRestoreFailed', line);
        this.#carryOut(step);
      } catch (error) {
        refusal = error as Error;
        continue;
      }
      this.#done(`ipvsadm ${line}`);
    }
    if (refusal !== undefined) throw refusal;
  };
  applyAddresses = ({ added, removed }: MemberChange): void => {
    if (added.length + removed.length === 0) return;
    this.#call('applyAddresses');
    for (const address of added) this.#refuse(this.addressRefusal, `ip addr add ${address}`);
    for (const address of added) {
      this.bound.add(address);
      this.#done(`ip addr add ${address}`);
    }
    for (const address of removed) {
      this.bound.delete(address);
      this.#done(`ip addr del ${address}`);
    }
  };

  take(): string[] {
    return this.lines.splice(0);
  }

  /** As `ipset save` prints them. */
  savedSets(): string[] {
    return [...this.#sets].flatMap(([name, { kind, members }]) => [
      `create ${name} ${kind}`,
      ...[...members].map((member) => `add ${name} ${member}`),
    ]);
  }

  /** All that is there, in an order of its own. */
  state(): string[] {
    const servers = renderVirtualServers(this.#servers.values()).trim().split('\n');
    return [...servers, ...this.savedSets(), ...this.bound].toSorted();
  }

  /** Of a kernel before anything of ours was in it, or as others left it. */
  makeSet(line: string): void {
    this.#restoreSetLine(line);
  }

  #restoreSetLine(line: string): void {
    const [verb, name = '', ...rest] = line.split(' ');
    const text = rest.join(' ');
    const set = this.#sets.get(name);
    const refuse = (why: string): never => {
      throw new AgentError('IpSetRestoreFailed', `refused: ${line}: ${why}`);
    };
    if (verb === 'create') {
      if (set !== undefined && set.kind !== text) refuse('exists, and is another');
      if (set === undefined) this.#sets.set(name, { kind: text, members: new Set() });
      return;
    }
    if (set === undefined) return refuse('no such set');
    switch (verb) {
      case 'add': {
        const room = Number(/maxelem (\d+)/.exec(set.kind)?.[1] ?? Number.POSITIVE_INFINITY);
        if (!set.members.has(text) && set.members.size >= room) refuse('it is full');
        set.members.add(text);
        break;
      }
      case 'del':
        set.members.delete(text);
        break;
      case 'flush':
        set.members.clear();
        break;
      case 'destroy':
        this.#sets.delete(name);
        break;
      case 'swap': {
        const other = this.#sets.get(text) ?? refuse('no such set');
        const [typeA, typeB] = [set, other].map(({ kind }) => kind.replace(/ maxelem .*/, ''));
        if (typeA !== typeB) refuse('their type does not match');
        this.#sets.set(name, other).set(text, set);
        break;
      }
      case undefined:
      default:
        refuse('no such command');
    }
  }

  #call(name: string): void {
    if (this.failing !== name) return;
    this.failing = undefined;
    throw new Error(`refused: ${name}`);
  }

  #refuse(code: string, line: string): void {
    if (this.refused?.test(line) !== true) return;
    this.refusals += 1;
    throw new AgentError(code, `refused: ${line}`);
  }

  #done(line: string): void {
    this.lines.push(line);
    this.linesToLive -= 1;
    if (this.linesToLive <= 0) throw new Error('killed');
  }

  #carryOut(step: IpvsStep): void {
    const refuse = (why: string): never => {
      throw new AgentError('IpvsRestoreFailed', `refused: ${why}`);
    };
    if ('server' in step) {
      const key = serverKey(step.server);
      const there = this.#servers.get(key);
      if ((there === undefined) !== (step.op === 'add-server')) refuse(`${step.op} ${key}`);
      this.#servers.set(key, { ...step.server, realServers: there?.realServers ?? [] });
      return;
    }
    const server = this.#servers.get(step.key);
    if (server === undefined) return refuse(`no server ${step.key}`);
    if (step.op === 'delete-server') return void this.#servers.delete(step.key);
    const { address } = step.real;
    const rest = server.realServers.filter((real) => real.address !== address);
    const isThere = rest.length < server.realServers.length;
    if (isThere !== (step.op !== 'add-real')) refuse(`${step.op} ${step.key} ${address}`);
    const realServers = step.op === 'delete-real' ? rest : [...rest, step.real];
    this.#servers.set(step.key, { ...server, realServers });
  }
}

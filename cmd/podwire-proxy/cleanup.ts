/** Removes what proxies left in the kernel: all of it (`--cleanup`), or what other modes left. */
import { existsSync } from 'node:fs';
import type { ProxyMode } from '#pkg/config/proxy-config.ts';
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import { runCommand } from '#pkg/exec/run.ts';
import type { Clock } from '#pkg/clock/clock.ts';
import { families, parseAddress, type Family } from '#pkg/ip/address.ts';
import { containsAddress, type Prefix } from '#pkg/ip/prefix.ts';
import { applyIptables } from '#pkg/iptables/apply.ts';
import type { Backend, CommandRunner, IptablesTool } from '#pkg/iptables/detect.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { getLink } from '#pkg/netlink/link.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { deleteLink } from '#pkg/netlink/link-change.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { readSysctl } from '#pkg/sysctl/sysctl.ts';
import { retireIpvs } from './ipvs-retirement.ts';
import { retiringIpvs } from './retiring-ipvs.ts';
import {
  describeStep,
  dummyDevice,
  planCleanup,
  type CleanupStep,
  type Found,
  type NftTable,
} from './leftovers.ts';

export interface CleanupParts {
  readonly log: Logger;
  /** IPVS virtual servers with these addresses stay. */
  readonly excludeCIDRs: readonly Prefix[];
  /** Runs programs; the host's own unless a test says otherwise. */
  readonly run?: CommandRunner;
}

/**
 * `--cleanup`: removes the rules of kube-proxy and of this proxy in every mode.
 *
 * @throws {AgentError} CleanupFailed, naming all that is left
 */
export async function cleanUp(parts: CleanupParts, signal: AbortSignal): Promise<void> {
  const failures = await remove(parts, undefined, signal);
  if (failures.length === 0) return;
  throw new AgentError('CleanupFailed', 'Cannot remove everything', {
    cause: new AggregateError(failures, `${failures.length} left`),
  });
}

/**
 * Removes what other modes left on this node. To be called when the mode in use has written its own
 * rules, so that Services work all the time. Connections through mode ipvs are waited for. Never
 * rejects: what fails is logged.
 */
export async function removeLeftovers(
  keep: ProxyMode,
  parts: CleanupParts & { readonly clock: Clock },
  signal: AbortSignal,
): Promise<void> {
  try {
    if (keep !== 'ipvs') await waitForIpvs(parts, signal);
    for (const err of await remove(parts, keep, signal)) {
      parts.log.warn({ err }, 'Leftovers of another proxy mode stay');
    }
    parts.log.debug({ mode: keep }, 'Looked for leftovers of other proxy modes');
  } catch (err) {
    if (!signal.aborted) parts.log.warn({ err }, 'Leftovers of another proxy mode stay');
  }
}

/** Others use IPVS too: without kube-ipvs0 it is not a proxy's. */
async function waitForIpvs(
  { clock, excludeCIDRs, log, run = runCommand }: Parameters<typeof removeLeftovers>[1],
  signal: AbortSignal,
): Promise<void> {
  using socket = new NetlinkSocket(await openSys());
  if (getLink(socket, dummyDevice) === undefined || !existsSync('/proc/net/ip_vs')) return;
  const isOurs = ({ address }: { readonly address: string }): boolean =>
    !excludeCIDRs.some((range) => containsAddress(range, parseAddress(address)));
  try {
    await retireIpvs({ ipvs: retiringIpvs(run, isOurs, signal), clock, log }, signal);
  } catch (err) {
    signal.throwIfAborted();
    log.warn({ err }, 'Connections through mode ipvs are not waited for');
  }
}

async function remove(
  { excludeCIDRs, log, run = runCommand }: CleanupParts,
  keep: ProxyMode | undefined,
  signal: AbortSignal,
): Promise<readonly Error[]> {
  const failures: Error[] = [];
  const attempt = async (what: string, action: () => Promise<void>): Promise<void> => {
    try {
      await action();
    } catch (cause) {
      signal.throwIfAborted();
      failures.push(new AgentError('CleanupFailed', `Cannot ${what}`, { cause }));
    }
  };
  const kernel = new Kernel(run, signal);
  const found = await kernel.observe(keep, attempt);
  const steps = planCleanup(found, { keep, excludeCIDRs });
  const tried = new Set<CleanupStep['kind']>();
  const gone = new Set<CleanupStep>();
  for (const step of steps) {
    if (isMassive(step) && !tried.has(step.kind)) {
      tried.add(step.kind);
      const alike = steps.filter(isMassive).filter(({ kind }) => kind === step.kind);
      for (const one of await kernel.applyTogether(alike)) gone.add(one);
    }
    const what = describeStep(step);
    await attempt(`remove ${what}`, async () => {
      if (!gone.has(step)) await kernel.apply(step);
      log.info({ removed: what }, 'Removed what a proxy left');
    });
    if (step.kind !== 'iptables') continue;
    for (const chain of step.held) {
      const message = `Cannot remove ${what}, chain ${chain}: rules of others lead into it; it is empty now`;
      failures.push(new AgentError('CleanupFailed', message));
    }
  }
  return failures;
}

/** Of which there are many, and for which a program of its own is slow. */
type MassiveStep = Extract<CleanupStep, { readonly kind: 'virtual-server' | 'ipset' }>;

function isMassive(step: CleanupStep): step is MassiveStep {
  return step.kind === 'virtual-server' || step.kind === 'ipset';
}

type Attempt = (what: string, action: () => Promise<void>) => Promise<void>;

/** The commands and netlink calls behind it. */
class Kernel {
  readonly #run: CommandRunner;
  readonly #signal: AbortSignal;

  constructor(run: CommandRunner, signal: AbortSignal) {
    this.#run = run;
    this.#signal = signal;
  }

  async observe(keep: ProxyMode | undefined, attempt: Attempt): Promise<Found> {
    const found = {
      iptables: [] as { family: Family; backend: Backend; save: string }[],
      nftTables: [] as NftTable[],
      virtualServers: [] as string[],
      hasDummyDevice: false,
      ipsets: [] as string[],
      routesLocalnet: false,
    };
    await attempt('read a setting', async () => {
      found.routesLocalnet = readSysctl('net/ipv4/conf/all/route_localnet') === '1';
    });
    await attempt(`look for device ${dummyDevice}`, async () => {
      using socket = new NetlinkSocket(await openSys());
      found.hasDummyDevice = getLink(socket, dummyDevice) !== undefined;
    });
    // A kernel without IPVS has no such file, nor anything to clean up.
    if (found.hasDummyDevice && existsSync('/proc/net/ip_vs')) {
      await attempt('list IPVS virtual servers', async () => {
        found.virtualServers.push(...(await this.#virtualServers()));
      });
    }
    // Kernels without ipset have none, and say so as an error.
    const sets = await this.#ipsets().catch(() => []);
    found.ipsets.push(...sets.filter((name) => name.startsWith('KUBE-')));
    await attempt('list nftables tables', async () => {
      for (const [, family = '', name = ''] of (
        await this.#out('nft', ['list', 'tables'])
      ).matchAll(/^table (\S+) (\S+)$/gm)) {
        found.nftTables.push({ family, name });
      }
    });
    // Reading large rulesets takes seconds; without these the ipvs mode was not here.
    if (keep === 'iptables' && !found.hasDummyDevice && found.ipsets.length === 0) return found;
    for (const backend of ['nf_tables', 'legacy'] as const) {
      const saved = new Map<Family, string>();
      const lists = families.map(async (family) => {
        const { save } = toolOf(family, backend, this.#run);
        const list = async (): Promise<void> => {
          saved.set(family, await this.#out(save, []));
        };
        // A kernel without the legacy filter has no rules in it.
        if (backend === 'legacy') await list().catch(() => undefined);
        else await attempt(`list rules with ${save}`, list);
      });
      await Promise.all(lists);
      for (const family of families) {
        const save = saved.get(family);
        if (save !== undefined) found.iptables.push({ family, backend, save });
      }
      this.#signal.throwIfAborted();
    }
    return found;
  }

  /**
   * Steps of one kind by one program, and those that are done after it: the program does not say
   * which line was refused, or stops there.
   */
  async applyTogether(steps: readonly MassiveStep[]): Promise<readonly MassiveStep[]> {
    const [first] = steps;
    if (first === undefined) return [];
    try {
      const isServer = first.kind === 'virtual-server';
      const input = steps.map((step) => `${lineOf(step)}\n`).join('');
      const file = isServer ? 'ipvsadm' : 'ipset';
      const args = [isServer ? '--restore' : 'restore'];
      await this.#run(file, args, { input, timeoutMs: 120_000, signal: this.#signal }).catch(
        () => undefined,
      );
      const left = new Set(await (isServer ? this.#virtualServers() : this.#ipsets()));
      return steps.filter((step) => !left.has(step.kind === 'ipset' ? step.name : step.server));
    } catch {
      this.#signal.throwIfAborted();
      return [];
    }
  }

  /** As ipvsadm names them: "-t 10.96.0.1:443". */
  async #virtualServers(): Promise<string[]> {
    const saved = await this.#out('ipvsadm', ['-S', '-n']);
    return [...saved.matchAll(/^-A ((?:-[tu]|--sctp-service) \S+)/gm)].map(([, at = '']) => at);
  }

  async #ipsets(): Promise<string[]> {
    return (await this.#out('ipset', ['list', '-n'])).split('\n').filter((name) => name !== '');
  }

  async apply(step: CleanupStep): Promise<void> {
    switch (step.kind) {
      case 'iptables': {
        const tool = toolOf(step.family, step.backend, this.#run);
        await applyIptables(tool, step.steps, this.#signal);
        return;
      }
      case 'nft-table':
        await this.#call('nft', ['delete', 'table', step.family, step.name]);
        return;
      case 'virtual-server':
        await this.#call('ipvsadm', ['-D', ...step.server.split(' ')]);
        return;
      case 'dummy-device': {
        using socket = new NetlinkSocket(await openSys());
        deleteLink(socket, step.name);
        return;
      }
      case 'ipset':
        await this.#call('ipset', ['destroy', step.name]);
        return;
    }
  }

  async #call(file: string, args: readonly string[]): Promise<string> {
    const options = { timeoutMs: 60_000, signal: this.#signal };
    return (await this.#run(file, args, options)).stdout;
  }

  /** Empty where there is no such program: then nothing was made with it either. */
  async #out(file: string, args: readonly string[]): Promise<string> {
    try {
      return await this.#call(file, args);
    } catch (error) {
      if (isErrno(error, 'CommandMissing') || isErrno(error, 'ENOENT')) return '';
      throw error;
    }
  }
}

function lineOf(step: MassiveStep): string {
  return step.kind === 'ipset' ? `destroy ${step.name}` : `-D ${step.server}`;
}

/** The program of one packet filter, whichever this node uses now. */
function toolOf(family: Family, backend: Backend, run: CommandRunner): IptablesTool {
  const suffix = backend === 'nf_tables' ? 'nft' : 'legacy';
  const name = `${family === 'ip' ? 'iptables' : 'ip6tables'}-${suffix}`;
  return {
    family,
    backend,
    version: '',
    save: `${name}-save`,
    restore: `${name}-restore`,
    randomFully: false,
    run,
  };
}

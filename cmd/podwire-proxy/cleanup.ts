/** Removes what proxies left in the kernel: all of it (`--cleanup`), or what other modes left. */
import { existsSync } from 'node:fs';
import type { ProxyMode } from '#pkg/config/proxy-config.ts';
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import { runCommand } from '#pkg/exec/run.ts';
import type { Clock } from '#pkg/clock/clock.ts';
import { parseAddress, type Family } from '#pkg/ip/address.ts';
import { containsAddress, type Prefix } from '#pkg/ip/prefix.ts';
import { applyIptables } from '#pkg/iptables/apply.ts';
import type { Backend, CommandRunner, IptablesTool } from '#pkg/iptables/detect.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { getLink } from '#pkg/netlink/link.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { deleteLink } from '#pkg/netlink/link-change.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
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
  for (const step of planCleanup(found, { keep, excludeCIDRs })) {
    const what = describeStep(step);
    await attempt(`remove ${what}`, async () => {
      await kernel.apply(step);
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
    };
    await attempt(`look for device ${dummyDevice}`, async () => {
      using socket = new NetlinkSocket(await openSys());
      found.hasDummyDevice = getLink(socket, dummyDevice) !== undefined;
    });
    // A kernel without IPVS has no such file, nor anything to clean up.
    if (found.hasDummyDevice && existsSync('/proc/net/ip_vs')) {
      await attempt('list IPVS virtual servers', async () => {
        for (const [, server = ''] of (await this.#out('ipvsadm', ['-S', '-n'])).matchAll(
          /^-A ((?:-[tu]|--sctp-service) \S+)/gm,
        )) {
          found.virtualServers.push(server);
        }
      });
    }
    // Kernels without ipset have none, and say so as an error.
    const sets = await this.#out('ipset', ['list', '-n']).catch(() => '');
    found.ipsets.push(...sets.split('\n').filter((name) => name.startsWith('KUBE-')));
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
      for (const family of ['ip', 'ip6'] as const) {
        const { save } = toolOf(family, backend, this.#run);
        const list = async (): Promise<void> => {
          found.iptables.push({ family, backend, save: await this.#out(save, []) });
        };
        // A kernel without the legacy filter has no rules in it.
        if (backend === 'legacy') await list().catch(() => undefined);
        else await attempt(`list rules with ${save}`, list);
        this.#signal.throwIfAborted();
      }
    }
    return found;
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

/** The nftables mode's parts: what this node's kernel and nft can, a writer for each family, the watch. */
import { release } from 'node:os';
import type { Clock } from '#pkg/clock/clock.ts';
import type { ProxyConfig } from '#pkg/config/proxy-config.ts';
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import { runCommand } from '#pkg/exec/run.ts';
import { families, type Family } from '#pkg/ip/address.ts';
import type { Prefix } from '#pkg/ip/prefix.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { openNetfilterSocket } from '#pkg/nfnetlink/nf-tables.ts';
import { readGeneration } from '#pkg/nfnetlink/table-structure.ts';
import type { NftCommand } from '#pkg/nftables/observe.ts';
import { renderTable } from '#pkg/nftables/render.ts';
import { proxySkeleton } from '#pkg/proxy/nftables-base.ts';
import { proxyTableName } from '#pkg/proxy/nftables-sets.ts';
import type { ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import type { ProxyHost } from './host.ts';
import { createNftablesCounters } from './nftables-counters.ts';
import { createNftablesDriver } from './nftables-driver.ts';
import { Generations } from './nftables-generations.ts';
import { watchNftablesDrift, type WatchedFamily } from './nftables-watch.ts';
import { createNftablesWriter } from './nftables-writer.ts';
import type { ProxyMode } from './proxy-mode.ts';
import { nftablesOptions } from './round-options.ts';
import { openServiceTraffic } from './service-traffic.ts';

export interface NftablesModeParts {
  readonly config: ProxyConfig;
  readonly host: ProxyHost;
  /** Ranges that cluster addresses are taken from. */
  readonly serviceCIDRs: () => readonly Prefix[];
  readonly clock: Clock;
  readonly log: Logger;
  /** Called when somebody else changed our tables: a round should look. */
  readonly request: () => void;
  /** Called when a port is left out since the kernel refuses its elements. */
  readonly onParked: (port: ProxiedPort, error: unknown) => void;
}

/** A Service of some thousand endpoints is one transaction. The kernel takes what it needs only. */
const sendBufferBytes = 32 * 1024 * 1024;

/** A table of 20,000 Services takes nft about a second. */
const nftTimeoutMs = 120_000;

/** kube-proxy's own requirements, for the same features: maps of concatenations, numgen in maps. */
const minKernel = [5, 13] as const;
const minNft = [1, 0, 1] as const;

/**
 * The mode as this node can run it; a node may well have just one family.
 *
 * @throws {AgentError} UnsupportedNode when kernel or nft are too old, CommandMissing without nft
 * @throws {AggregateError} when the table can be made in no family, saying why for each
 */
export async function createNftablesMode(
  parts: NftablesModeParts,
  signal: AbortSignal,
): Promise<ProxyMode> {
  const { clock, config, host, log } = parts;
  const nft = nftCommand();
  const versions = await probeVersions(nft, signal);
  using opened = new DisposableStack();
  const sys = await openSys();
  // While a table is read part by part nothing else can be asked on its socket: one for each.
  const openSocket = (bufferBytes?: number) => opened.use(openNetfilterSocket(sys, bufferBytes));
  const { counters } = config.nftables;
  const counting =
    counters === 'none' ? {} : { counters: createNftablesCounters(openSocket(), counters) };
  const measuring = config.nftables.traffic
    ? { traffic: opened.use(openServiceTraffic(sys, log)) }
    : {};
  const ofGenerations = openSocket();
  const generations = new Generations(() => readGeneration(ofGenerations));
  const watched = new Map<Family, WatchedFamily>();
  const failures = new Map<Family, unknown>();
  for (const family of families) {
    const options = (node: Parameters<typeof nftablesOptions>[0]['node']) =>
      nftablesOptions({ config, node, host, serviceCIDRs: parts.serviceCIDRs() }, family);
    try {
      // Asks the kernel as well: a module it lacks shows here, not with the first Service.
      const script = renderTable(proxySkeleton(options(undefined), []));
      await nft(['--check', '-f', '-'], script, signal);
    } catch (error) {
      signal.throwIfAborted();
      failures.set(family, error);
      continue;
    }
    const socket = openSocket(sendBufferBytes);
    const driver = createNftablesDriver(family, { socket, nft, generations });
    const writer = createNftablesWriter({ ...parts, family, driver, options });
    watched.set(family, { driver, writer });
  }
  if (watched.size === 0) {
    throw new AggregateError([...failures.values()], 'Cannot use nftables in any IP family');
  }
  for (const [family, err] of failures) {
    log.warn({ family, err }, 'Services of this IP family will not work on this node');
  }
  log.info(
    { ...versions, families: [...watched.keys()], table: proxyTableName },
    'Using nftables: rules by nft, elements by netlink, which is many times faster for small changes',
  );
  const stop = new AbortController();
  opened.defer(() => stop.abort());
  const onDrift = parts.request;
  void watchNftablesDrift({ families: watched, generations, clock, log, onDrift }, stop.signal);
  const running = opened.move();
  return {
    name: 'nftables',
    ...counting,
    ...measuring,
    writers: new Map([...watched].map(([family, { writer }]) => [family, writer])),
    [Symbol.dispose]: () => running.dispose(),
  };
}

/** nft of the PATH, in this process's network namespace. */
export function nftCommand(): NftCommand {
  return async (args, input, signal) => {
    const given = input === undefined ? {} : { input };
    const options = { timeoutMs: nftTimeoutMs, signal, ...given };
    return (await runCommand('nft', args, options)).stdout;
  };
}

async function probeVersions(
  nft: NftCommand,
  signal: AbortSignal,
): Promise<{ readonly kernel: string; readonly nft: string }> {
  const kernel = release();
  const said = await nft(['--version'], undefined, signal).catch((cause: unknown) => {
    if (isErrno(cause, 'CommandMissing')) throw cause;
    throw new AgentError('UnsupportedNode', 'Cannot use nftables: nft does not run', { cause });
  });
  const version = /v(\d+(?:\.\d+)+)/.exec(said)?.[1] ?? said;
  require('kernel', kernel, minKernel);
  require('nft', version, minNft);
  return { kernel, nft: version };
}

function require(what: string, version: string, least: readonly number[]): void {
  const parts = version.split(/[.-]/).map(Number);
  for (const [i, number] of least.entries()) {
    const have = parts[i] ?? 0;
    // A version that is no number is left to the checks that follow.
    if (have > number || Number.isNaN(have)) return;
    if (have === number) continue;
    throw new AgentError(
      'UnsupportedNode',
      `Cannot use nftables: ${what} is ${version}, expected ${least.join('.')} or newer`,
    );
  }
}

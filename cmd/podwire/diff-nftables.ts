/** `podwire diff` in mode nftables: what the proxy would change, as a script that nft reads. */
import type { ProxyConfig } from '#pkg/config/proxy-config.ts';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { families, type Family } from '#pkg/ip/address.ts';
import { openNetfilterSocket } from '#pkg/nfnetlink/nf-tables.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';
import type { NftCommand } from '#pkg/nftables/observe.ts';
import { renderTable } from '#pkg/nftables/render.ts';
import { proxySkeleton } from '#pkg/proxy/nftables-base.ts';
import { proxyTableScript, type ObservedProxyTable } from '#pkg/proxy/nftables-plan.ts';
import { proxySetNames } from '#pkg/proxy/nftables-sets.ts';
import { portKey } from '#pkg/proxy/proxied-port.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { proxyHost } from '#cmd/podwire-proxy/host.ts';
import { createNftablesDriver } from '#cmd/podwire-proxy/nftables-driver.ts';
import { Generations } from '#cmd/podwire-proxy/nftables-generations.ts';
import { nftCommand } from '#cmd/podwire-proxy/nftables-mode.ts';
import { nftablesOptions } from '#cmd/podwire-proxy/round-options.ts';
import type { ModeDiff } from './diff-mode.ts';

/**
 * @param warn told of a family that does not work on this node
 * @throws {AggregateError} when nftables works in none, saying why for each
 */
export async function nftablesDiff(
  config: ProxyConfig,
  warn: (sentence: string) => void,
  signal: AbortSignal,
): Promise<ModeDiff> {
  const nft = nftCommand();
  const sys = await openSys();
  const given = { config, host: proxyHost };
  const usable: Family[] = [];
  const failures: unknown[] = [];
  for (const family of families) {
    const options = nftablesOptions({ ...given, node: undefined, serviceCIDRs: [] }, family);
    try {
      await nft(['--check', '-f', '-'], renderTable(proxySkeleton(options, [])), signal);
      usable.push(family);
    } catch (error) {
      signal.throwIfAborted();
      failures.push(error);
    }
  }
  if (usable.length === 0) {
    throw new AggregateError(failures, 'Cannot use nftables in any IP family');
  }
  for (const error of failures) if (error instanceof Error) warn(error.message);
  return {
    families: usable,
    diff: ({ family, node, ports, serviceCIDRs }) => {
      const options = nftablesOptions({ ...given, node, serviceCIDRs }, family);
      using socket = openNetfilterSocket(sys);
      const have = observe(family, socket, nft);
      const wanted = new Map(ports.map((port) => [portKey(port), port]));
      return Promise.resolve(proxyTableScript(wanted, options, have));
    },
  };
}

/** A table that changes while it is read is read again, so often. */
const attempts = 5;

function observe(family: Family, socket: NetlinkSocket, nft: NftCommand): ObservedProxyTable {
  const driver = createNftablesDriver(family, {
    socket,
    nft,
    generations: new Generations(() => 0),
  });
  for (let attempt = 1; ; attempt++) {
    try {
      const structure = driver.structure();
      if (structure === undefined) return { structure, contents: new Map() };
      const contents = new Map<string, ReadonlyMap<string, string>>();
      for (const set of proxySetNames) {
        if (!structure.sets.has(set)) continue;
        const elements = [...driver.read(set)].flat();
        contents.set(set, new Map(elements.map(({ key, value }) => [key, value ?? ''])));
      }
      return { structure, contents };
    } catch (error) {
      const isMoving = isErrno(error, 'EINTR') || isErrno(error, 'ENOENT');
      if (attempt === attempts || !isMoving) throw error;
    }
  }
}

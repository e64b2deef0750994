/** The nftables mode's writers in a scratch namespace, without an API server: ports go in, rules come out. */
import type { Family } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { openNetfilterSocket } from '#pkg/nfnetlink/nf-tables.ts';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import type { NftCommand } from '#pkg/nftables/observe.ts';
import type { NftablesOptions } from '#pkg/proxy/nftables-options.ts';
import { portKey, type ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import { snapshot, type Cluster } from '#pkg/proxy/testdata/records.ts';
import { openNodeSys } from '#pkg/sys/node-ffi.ts';
import { createNftablesDriver, type NftablesDriver } from '#cmd/podwire-proxy/nftables-driver.ts';
import { createNftablesWriter, type NftablesWriter } from '#cmd/podwire-proxy/nftables-writer.ts';

export interface NftablesRig extends Disposable {
  readonly driver: NftablesDriver;
  /** What a daemon that was just started would have. */
  newWriter(options?: Partial<NftablesOptions>): NftablesWriter;
  readonly nft: NftCommand;
}

const sys = openNodeSys();
const quiet = { debug: nothing, info: nothing, warn: nothing, error: nothing };

export function createNftablesRig(netns: ScratchNetns, family: Family): NftablesRig {
  const socket = withNetns(sys, netns.path, () => openNetfilterSocket(sys, 32 << 20), die);
  const nft: NftCommand = async (args, input) =>
    (await netns.exec('nft', args, input === undefined ? {} : { input, timeoutMs: 60_000 })).stdout;
  const driver = createNftablesDriver(family, socket, nft);
  return {
    driver,
    nft,
    newWriter: (options = {}) =>
      createNftablesWriter({
        family,
        driver,
        log: quiet,
        options: () => nftablesTestOptions({ family, ...options }),
      }),
    [Symbol.dispose]: () => socket[Symbol.dispose](),
  };
}

export function nftablesTestOptions(options: Partial<NftablesOptions> = {}): NftablesOptions {
  return {
    family: 'ip',
    masqueradeBit: 14,
    masqueradeAll: false,
    localDetector: {
      kind: 'cluster-cidr',
      prefixes: [parsePrefix('10.1.0.0/16'), parsePrefix('fd00:10::/32')],
    },
    nodePortAddresses: 'all',
    nodeAddress: undefined,
    serviceCIDRs: [],
    ...options,
  };
}

export function portsOf(cluster: Cluster, family: Family): Map<string, ProxiedPort> {
  return new Map(snapshot(cluster, family).ports.map((port) => [portKey(port), port]));
}

function nothing(): void {
  // These tests look at the kernel, not at the log.
}

function die(error: Error): never {
  throw error;
}

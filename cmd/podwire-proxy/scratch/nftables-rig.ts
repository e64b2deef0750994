/** The nftables mode's writers in a scratch namespace, without an API server: ports go in, rules come out. */
import { systemClock } from '#pkg/clock/clock.ts';
import type { Family } from '#pkg/ip/address.ts';
import { openNetfilterSocket } from '#pkg/nfnetlink/nf-tables.ts';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import type { NftCommand } from '#pkg/nftables/observe.ts';
import type { NftablesOptions } from '#pkg/proxy/nftables-options.ts';
import type { ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import { openNodeSys } from '#pkg/sys/node-ffi.ts';
import { createNftablesDriver, type NftablesDriver } from '#cmd/podwire-proxy/nftables-driver.ts';
import { Generations } from '#cmd/podwire-proxy/nftables-generations.ts';
import { readGeneration } from '#pkg/nfnetlink/table-structure.ts';
import { createNftablesWriter, type NftablesWriter } from '#cmd/podwire-proxy/nftables-writer.ts';
import { nftablesTestOptions, quietLog } from './nftables-inputs.ts';

export interface NftablesRig extends Disposable {
  readonly driver: NftablesDriver;
  readonly generations: Generations;
  /** What a daemon that was just started would have. */
  newWriter(
    options?: Partial<NftablesOptions>,
    onParked?: (port: ProxiedPort) => void,
  ): NftablesWriter;
  readonly nft: NftCommand;
}

const sys = openNodeSys();

export function createNftablesRig(netns: ScratchNetns, family: Family): NftablesRig {
  const opened = new DisposableStack();
  const openSocket = () =>
    opened.use(withNetns(sys, netns.path, () => openNetfilterSocket(sys, 32 << 20), die));
  const nft: NftCommand = async (args, input) =>
    (await netns.exec('nft', args, input === undefined ? {} : { input, timeoutMs: 60_000 })).stdout;
  const ofGenerations = openSocket();
  const generations = new Generations(() => readGeneration(ofGenerations));
  const driver = createNftablesDriver(family, { socket: openSocket(), nft, generations });
  return {
    driver,
    generations,
    nft,
    newWriter: (options = {}, onParked = () => undefined) =>
      createNftablesWriter({
        family,
        driver,
        log: quietLog,
        clock: systemClock,
        onParked,
        options: () => nftablesTestOptions({ family, ...options }),
      }),
    [Symbol.dispose]: () => opened.dispose(),
  };
}

function die(error: Error): never {
  throw error;
}

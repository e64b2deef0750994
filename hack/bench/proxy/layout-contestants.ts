/** Who writes the layouts that `layouts.ts` compares, each on a node of its own. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createNftablesDriver } from '#cmd/podwire-proxy/nftables-driver.ts';
import { Generations } from '#cmd/podwire-proxy/nftables-generations.ts';
import { createNftablesWriter } from '#cmd/podwire-proxy/nftables-writer.ts';
import { systemClock } from '#pkg/clock/clock.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import { openNetfilterSocket } from '#pkg/nfnetlink/nf-tables.ts';
import { readGeneration } from '#pkg/nfnetlink/table-structure.ts';
import { portKey, type ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import type { SmallCluster } from '#pkg/proxy/testdata/small-cluster.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { benchPort } from './bench-port.ts';
import { addressing } from './cluster.ts';
import { upstreamChange, upstreamTable } from './upstream-layout.ts';

const addresses = addressing.ip;
const { serviceCIDR } = addresses;
const clusterCIDR = '10.0.0.0/8';
const nodeAddress = '203.0.113.1';
const sys = await openSys();
const { signal } = new AbortController();

/** Who writes one layout on its node. */
export interface LayoutContestant {
  readonly name: string;
  readonly cluster: SmallCluster;
  /** Loads everything into a kernel that has nothing of it. */
  load(ports: ReadonlyMap<string, ProxiedPort>): Promise<void>;
  change(ports: ReadonlyMap<string, ProxiedPort>, changed: ProxiedPort): Promise<void>;
  unload(): Promise<void>;
}

/** Services with two endpoints each that are not there, and last the one that is probed. */
export function benchCluster(services: number): Map<string, ProxiedPort> {
  const ports = Array.from({ length: services - 1 }, (_, n) =>
    benchPort(`service-${n}`, { ip: addresses.service(n + 1), port: 80 }, [
      `${addresses.pod(2 * n)}:8080`,
      `${addresses.pod(2 * n + 1)}:8080`,
    ]),
  );
  ports.push(benchPort('zz-probed', addresses.probed, [`${addresses.pods[0]}:8080`]));
  return new Map(ports.map((one) => [portKey(one), one]));
}

/** nft on a node, started as cheaply as a process can be. */
export async function nft(
  { node }: SmallCluster,
  args: readonly string[],
  input: string | undefined,
  timeoutMs: number,
): Promise<string> {
  const child = withNetns(
    sys,
    node.path,
    () => spawn('nft', [...args], { timeout: timeoutMs }),
    die,
  );
  let [said, failed] = ['', ''];
  child.stdout.on('data', (bytes: Buffer) => (said += bytes.toString()));
  child.stderr.on('data', (bytes: Buffer) => (failed += bytes.toString()));
  child.stdin.on('error', () => undefined);
  child.stdin.end(input ?? '');
  const [code] = (await once(child, 'close')) as [number | null];
  if (code === null) throw new GivenUp();
  if (code !== 0) throw new Error(`Cannot measure: nft ${args.join(' ')}: ${failed}`);
  return said;
}

/** It took longer than one has patience. */
export class GivenUp extends Error {}

export function upstream(on: SmallCluster, patienceMs: number): LayoutContestant {
  const options = { clusterCIDR, nodeAddress, serviceCIDR };
  let text = '';
  let textOf: unknown;
  return {
    name: "kube-proxy's layout by nft",
    cluster: on,
    load: async (ports) => {
      if (textOf !== ports) text = upstreamTable(ports.values(), options);
      textOf = ports;
      await nft(on, ['-f', '-'], text, patienceMs);
    },
    change: async (_, changed) =>
      void (await nft(on, ['-f', '-'], upstreamChange(changed), 60_000)),
    unload: async () =>
      void (await nft(on, ['delete', 'table', 'ip', 'kube-proxy'], undefined, patienceMs)),
  };
}

export function ours(
  on: SmallCluster,
  patienceMs: number,
  opened: DisposableStack,
): LayoutContestant {
  const openSocket = () =>
    opened.use(withNetns(sys, on.node.path, () => openNetfilterSocket(sys, 32 * 1024 * 1024), die));
  const ofGenerations = openSocket();
  const generations = new Generations(() => readGeneration(ofGenerations));
  const driver = createNftablesDriver('ip', {
    socket: openSocket(),
    generations,
    nft: (args, input) => nft(on, args, input, patienceMs),
  });
  const writerOf = () =>
    createNftablesWriter({
      family: 'ip',
      driver,
      options: () => ({
        family: 'ip',
        masqueradeBit: 14,
        masqueradeAll: false,
        localDetector: { kind: 'cluster-cidr', prefixes: [parsePrefix(clusterCIDR)] },
        nodePortAddresses: [nodeAddress],
        nodeAddress,
        serviceCIDRs: [parsePrefix(serviceCIDR)],
        counters: 'services',
      }),
      onParked: (parked) => {
        throw new Error(`Cannot measure: the kernel refuses ${parked.printName}`);
      },
      clock: systemClock,
      log: silentLogger,
    });
  let writer = writerOf();
  return {
    name: 'our layout by our writer',
    cluster: on,
    load: async (ports) => {
      writer = writerOf();
      await writer.write({ ports, changed: 'all', node: undefined }, signal);
    },
    change: async (ports, changed) => {
      const { kind } = await writer.write(
        { ports, changed: new Set([portKey(changed)]), node: undefined },
        signal,
      );
      if (kind !== 'partial') throw new Error('Cannot measure: one change was written in full');
    },
    unload: async () =>
      void (await nft(on, ['delete', 'table', 'ip', 'podwire-proxy'], undefined, patienceMs)),
  };
}

function die(error: Error): never {
  throw error;
}

/**
 * A node where pods get interfaces as Multus asks for them: a network with its whole chain of plugins,
 * and the name of an interface (multus-cni docs/how-to-use.md).
 */
import { expect } from 'vitest';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import { eachOnScratchNode } from './scratch-each.ts';
import {
  eventually,
  goPluginDir,
  writeNodeFacts,
  type CniDocument,
  type ScratchNode,
} from './scratch-node.ts';

/** As in a NetworkAttachmentDefinition. */
export interface Network {
  readonly name: string;
  readonly plugins: readonly Plugin[];
}

export type Plugin = { readonly type: string } & Readonly<Record<string, unknown>>;

export interface Ask {
  readonly id?: string;
  readonly netns?: string;
  readonly args?: string;
  readonly runtimeConfig?: object;
  readonly prevResult?: CniDocument;
  /** Keys that every plugin of the chain gets. */
  readonly more?: object;
}

export class Multus {
  readonly node: ScratchNode;
  readonly pod: ScratchNetns;
  /** A machine on the wire of the node's uplink `up0`: 10.1.2.200, and 10.50.0.1 behind it. */
  readonly neighbour: ScratchNetns;

  constructor(node: ScratchNode, pod: ScratchNetns, neighbour: ScratchNetns) {
    this.node = node;
    this.pod = pod;
    this.neighbour = neighbour;
  }

  /** host-local, with leases where the node looks for them. */
  ipam(subnet: string, more: object = {}): object {
    return { type: 'host-local', dataDir: this.node.dataDir, subnet, ...more };
  }

  podwire(more: object = {}): Plugin {
    const { dataDir, nodeFile, stateDir } = this.node;
    return { type: 'podwire', bridge: 'cni0', nodeFile, stateDir, ipam: { dataDir }, ...more };
  }

  /** Runs the chain as libcni does. Returns the last result of ADD, or the first error's message. */
  async run(
    command: 'ADD' | 'CHECK' | 'DEL' | 'GC',
    [ifName, { name, plugins }]: readonly [string, Network],
    ask: Ask = {},
  ): Promise<CniDocument | string | undefined> {
    const { id = 'pod-1', netns = this.pod.path, args = '', runtimeConfig, more = {} } = ask;
    let { prevResult } = ask;
    const cniVersion = plugins.some(isForeign) ? '1.0.0' : '1.1.0';
    for (const plugin of command === 'DEL' ? plugins.toReversed() : plugins) {
      const { exitCode, json, stderr } = await this.node.cni(plugin.type, {
        command,
        id,
        ifName,
        netns,
        args,
        config: { cniVersion, name, runtimeConfig, ...plugin, ...more, prevResult },
        ...(isForeign(plugin) ? { program: `${goPluginDir}/${plugin.type}` } : {}),
      });
      // The reference's sbr tells what it does.
      if (!isForeign(plugin)) expect(stderr).toBe('');
      if (exitCode !== 0) return json.msg;
      if (command === 'ADD') prevResult = json;
    }
    return command === 'ADD' ? prevResult : undefined;
  }

  /** ADD that must succeed. */
  async attach(ifName: string, network: Network, ask: Ask = {}): Promise<CniDocument> {
    const result = await this.run('ADD', [ifName, network], ask);
    if (typeof result !== 'object') throw new Error(`${ifName} of ${network.name}: ${result}`);
    return result;
  }
}

/** Not ours: run as the machine has it. */
export function isForeign({ type }: Plugin): boolean {
  return type === 'sbr';
}

/** The first address, without its length. */
export function addressOf(result: CniDocument): string {
  return result.ips[0]?.address.split('/')[0] ?? '';
}

/** Makes such a node before each test, and removes it after. */
export function eachWithMultus(arrange: (multus: Multus) => void): void {
  eachOnScratchNode(async (node) => {
    writeNodeFacts(node, ['10.244.1.0/24']);
    const [pod, neighbour] = [await node.pod(), await node.pod()];
    await node.netns.ip(`link add up0 type veth peer name up0 netns ${neighbour.name}`);
    await node.netns.ip('link set up0 up');
    await neighbour.batch([
      'addr add 10.1.2.200/24 dev up0',
      'addr add 10.50.0.1/32 dev lo',
      'link set up0 up',
    ]);
    await eventually(async () => (await node.netns.ip('link show up0')).includes('LOWER_UP'));
    arrange(new Multus(node, pod, neighbour));
  });
}

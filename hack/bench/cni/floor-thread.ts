/**
 * A thread in the node's namespace that adds and deletes pods while it is warm: no program starts, no
 * file is read. What the kernel takes is what is left.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { answerCni } from '#pkg/cni/protocol.ts';
import { parseAddress, type Address } from '#pkg/ip/address.ts';
import { defaultPrefix } from '#pkg/ip/prefix.ts';
import { deleteLink } from '#pkg/netlink/link-change.ts';
import { createVeth } from '#pkg/netlink/link-create.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { openNetns, withNetns } from '#pkg/netns/netns.ts';
import { CLONE_NEWNET } from '#pkg/sys/constants.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { addressMac, hostLinkMac, hostLinkName } from '#plugins/main/attachment-link.ts';
import { ensureBridge } from '#plugins/main/bridge-device.ts';
import { bringUp } from '#plugins/main/bridge-port.ts';
import { configurePodLink, setPodSysctls } from '#plugins/main/pod-link.ts';
import { waitUntilRunning } from '#plugins/main/wait-link.ts';
import { delegatesOf, pluginOf } from '#plugins/registry.ts';
import { programOf, type Plugin, type Pod } from './contestant.ts';

export interface FloorThreadData {
  readonly node: string;
  readonly plugin: Plugin;
  /**
   * "plugin" is the whole plugin, given an address by its configuration; "messages" what it says to
   * the kernel of links, addresses and routes, and nothing else.
   */
  readonly does: 'plugin' | 'messages';
  /** One Int32: the next pod of the round. */
  readonly next: SharedArrayBuffer;
}

export interface FloorRound {
  readonly command: 'ADD' | 'DEL';
  readonly pods: readonly FloorPod[];
}

/** The address is the caller's business here. */
export type FloorPod = Pod & { readonly ifName: string; readonly address: string };

const { node, plugin: program, does, next } = workerData as FloorThreadData;
const sys = await openSys();
const fail = (error: Error): never => {
  throw error;
};

/** For good: this thread has nothing to do elsewhere. */
function enterNode(): void {
  using netns = openNetns(node);
  sys.setns(netns.fd, CLONE_NEWNET);
}

type Call = (command: 'ADD' | 'DEL', pod: FloorPod) => void;

async function pluginCall(): Promise<Call> {
  const delegates = await delegatesOf('bridge', sys);
  const runProgram = (): never => fail(new Error('Cannot run a program: none is expected'));
  const plugin = await pluginOf('bridge', { sys, runProgram, delegates, die: fail });
  return (command, pod) => {
    const addresses = [{ address: `${pod.address}/20`, gateway: gateway.text }];
    const config = { ...program.config, ipam: { type: 'static', addresses } };
    const { env, stdin } = programOf({ ...program, config }, { command, pod });
    const { exitCode, stdout } = answerCni(plugin, {
      environment: env,
      readStdin: () => stdin,
      isOwnNetns: () => false,
    });
    if (exitCode !== 0) throw new Error(`${command} failed: ${stdout}`);
  };
}

const gateway = { text: '10.244.0.1', address: parseAddress('10.244.0.1') };

function messagesCall(): Call {
  const host = new NetlinkSocket(sys);
  const bridge = ensureBridge(host, {
    name: 'cni0',
    mac: addressMac(gateway.address),
    mtuBytes: 1450,
    promiscuous: false,
    vlanFiltering: false,
  }).link;
  const add = (pod: FloorPod, address: Address): void => {
    const attachment = { containerId: pod.id, ifName: pod.ifName };
    const name = hostLinkName(attachment);
    using netns = openNetns(pod.netns);
    using inside = withNetns(sys, netns.fd, () => new NetlinkSocket(sys), fail);
    const hostLink = createVeth(host, {
      mtuBytes: 1450,
      host: {
        name,
        mac: hostLinkMac(attachment),
        masterIndex: bridge.index,
        hairpin: true,
        alias: name,
        up: false,
      },
      peer: { name: pod.ifName, netnsFd: netns.fd, mac: addressMac(address) },
    });
    const settings = { families: new Set(['ip'] as const) };
    withNetns(sys, netns.fd, () => setPodSysctls(pod.ifName, settings), fail);
    configurePodLink(inside, hostLink.peerIndex ?? 0, {
      ips: [{ address: { address, length: 20 }, gateway: gateway.address }],
      routes: [{ destination: defaultPrefix('ip') }],
    });
    const { running } = bringUp(host, { bridgeLink: bridge, hostLink }).hostLink;
    if (!running) waitUntilRunning(host, name);
    waitUntilRunning(inside, pod.ifName);
  };
  return (command, pod) => {
    if (command === 'ADD') add(pod, parseAddress(pod.address));
    else deleteLink(host, hostLinkName({ containerId: pod.id, ifName: pod.ifName }));
  };
}

enterNode();
const call = does === 'plugin' ? await pluginCall() : messagesCall();
const counter = new Int32Array(next);
parentPort?.on('message', ({ command, pods }: FloorRound) => {
  for (;;) {
    const pod = pods[Atomics.add(counter, 0, 1)];
    if (pod === undefined) break;
    call(command, pod);
  }
  parentPort?.postMessage('done');
});
parentPort?.postMessage('ready');

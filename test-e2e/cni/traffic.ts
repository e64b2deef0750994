/** Servers in pods, and a machine beside the node that talks to them. */
import { runCommand } from '#pkg/exec/run.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import type { RuntimeNode } from './runtime-node.ts';

/** The node's address on the wire it shares with {@link createOutside}. */
export const nodeAddress = '198.51.100.1';

const timeoutMs = 240_000;

/** A network namespace beside the node, at 198.51.100.2. */
export async function createOutside(node: RuntimeNode): Promise<ScratchNetns> {
  const outside = await createScratchNetns('pw-outside');
  await node.netns.ip(`link add wire type veth peer name wire netns ${outside.name}`);
  for (const [netns, address] of [
    [node.netns, nodeAddress],
    [outside, '198.51.100.2'],
  ] as const) {
    await netns.ip(`address add ${address}/24 dev wire`);
    await netns.ip('link set wire up');
  }
  return outside;
}

/** Answers each TCP connection to the pod's port with the text, for as long as the node lives. */
export async function serveText(
  node: RuntimeNode,
  { netns, port, text }: { readonly netns: string; readonly port: number; readonly text: string },
): Promise<void> {
  const script = `require('net').createServer((s) => s.on('error', () => {}).end('${text}')).listen(${port}, '::')`;
  await node.start('nsenter', [`--net=${netns}`, process.execPath, '-e', script]);
  const listening = async (): Promise<boolean> => {
    const { stdout } = await node.inPod(netns, 'ss', ['-Hltn', `sport = :${port}`]);
    return stdout !== '';
  };
  const deadline = Date.now() + timeoutMs;
  while (!(await listening())) {
    if (Date.now() > deadline) throw new Error(`Cannot serve ${text}: port ${port} stays closed`);
  }
}

/** What a server says to a namespace of this machine; "" when it says nothing. */
export async function ask(netns: ScratchNetns, address: string, port: number): Promise<string> {
  const script = `timeout 20 bash -c 'exec 3<>/dev/tcp/${address}/${port} && cat <&3' 2> /dev/null; true`;
  const enter = [`--net=${netns.path}`, 'bash', '-c', script];
  const { stdout } = await runCommand('nsenter', enter, { timeoutMs });
  return stdout;
}

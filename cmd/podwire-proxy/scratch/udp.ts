/** UDP programs in network namespaces: servers with a name, clients that never change their port. */
import { execa } from 'execa';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';

export interface UdpClient extends Disposable {
  /** The last answer or error code; "silence" when the last ten datagrams got neither. */
  latest(): string;
}

/** Resolves when it listens; ends with the namespace. */
export async function startUdpServer(
  netns: ScratchNetns,
  name: string,
  ports: readonly number[],
): Promise<void> {
  const child = run(netns, 'udp-server.mjs', [name, ...ports.map(String)]);
  await new Promise<void>((resolve, reject) => {
    child.stdout.once('data', () => resolve());
    child.catch(reject);
  });
  child.catch(() => undefined);
}

export function startUdpClient(netns: ScratchNetns, host: string, port: number): UdpClient {
  const child = run(netns, 'udp-client.mjs', [host, String(port)]);
  child.catch(() => undefined);
  let said = 'nothing yet';
  let unanswered = 0;
  let rest = '';
  child.stdout.on('data', (data: Buffer) => {
    const lines = (rest + data.toString()).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      const [kind, what = ''] = line.split(' ');
      if (kind === 'sent') {
        unanswered += 1;
        continue;
      }
      said = what;
      unanswered = 0;
    }
  });
  return {
    latest: () => (unanswered > 10 ? 'silence' : said),
    [Symbol.dispose]: () => void child.kill('SIGKILL'),
  };
}

/**
 * `nsenter` becomes the program, so a signal reaches it; `ip netns exec` would make a mount namespace,
 * which takes seconds in the VM.
 */
function run(netns: ScratchNetns, script: string, args: readonly string[]) {
  const file = new URL(script, import.meta.url).pathname;
  const command = [`--net=${netns.path}`, process.execPath, file, ...args];
  return execa('nsenter', command, { stdin: 'ignore', buffer: false });
}

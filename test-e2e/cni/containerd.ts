/** Debian's containerd on a node of its own: its root, state, socket and configuration are there. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { systemClock } from '#pkg/clock/clock.ts';
import { createCriClient, type CriClient } from './cri-client.ts';
import { pauseImageName, writePauseImage } from './pause-image.ts';
import type { RuntimeNode, Started } from './runtime-node.ts';

export interface Containerd extends AsyncDisposable {
  readonly cri: CriClient;
  /** Ends the daemon and starts it again; the pods' processes stay. */
  restart(): Promise<void>;
}

export async function startContainerd(node: RuntimeNode): Promise<Containerd> {
  const directory = join(node.directory, 'containerd');
  mkdirSync(directory);
  const socket = join(directory, 'containerd.sock');
  const configFile = join(directory, 'config.toml');
  writeFileSync(configFile, configuration(node, directory));
  const archive = await writePauseImage(directory);
  const cri = createCriClient(socket);
  let daemon = await startDaemon(node, configFile, cri);
  await node.exec('ctr', ['-a', socket, '-n', 'k8s.io', 'images', 'import', archive]);
  return {
    cri,
    async restart() {
      await daemon.stop('TERM');
      daemon = await startDaemon(node, configFile, cri);
    },
    async [Symbol.asyncDispose]() {
      cri[Symbol.dispose]();
      await daemon.stop('TERM');
    },
  };
}

async function startDaemon(
  node: RuntimeNode,
  configFile: string,
  cri: CriClient,
): Promise<Started> {
  const daemon = await node.start('containerd', ['--config', configFile]);
  const deadline = systemClock.now() + 240_000;
  for (;;) {
    const refusal = await cri.networkReady().then(
      () => undefined,
      (error: unknown) => error,
    );
    if (refusal === undefined) return daemon;
    if (systemClock.now() > deadline || daemon.hasEnded()) {
      throw new Error(`Cannot start containerd: it does not answer\n${daemon.log()}`, {
        cause: refusal,
      });
    }
    await systemClock.sleep(50);
  }
}

function configuration(node: RuntimeNode, directory: string): string {
  const cri = 'plugins."io.containerd.grpc.v1.cri"';
  const text = (value: string): string => JSON.stringify(value);
  return `version = 2
root = ${text(join(directory, 'root'))}
state = ${text(join(directory, 'state'))}
[grpc]
  address = ${text(join(directory, 'containerd.sock'))}
[plugins."io.containerd.internal.v1.opt"]
  path = ${text(join(directory, 'opt'))}
[${cri}]
  sandbox_image = ${text(pauseImageName)}
  # The test may run where the kernel lets no one lower it, or without AppArmor.
  restrict_oom_score_adj = true
  disable_apparmor = true
  tolerate_missing_hugetlb_controller = true
[${cri}.containerd]
  # Copies: needs no support of the kernel or the file system below.
  snapshotter = "native"
[${cri}.cni]
  bin_dir = ${text(node.binDir)}
  conf_dir = ${text(node.confDir)}
`;
}

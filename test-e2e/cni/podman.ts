/** podman with its CNI backend, on a node of its own: its configuration and storage are there. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { writePauseRootfs } from './pause-image.ts';
import type { RuntimeNode } from './runtime-node.ts';

export interface Podman {
  /** Runs podman and returns what it printed. */
  run(...args: string[]): Promise<string>;
  /** Starts a container that waits, and returns it. */
  start(name: string, ...options: string[]): Promise<PodmanContainer>;
  remove(...names: string[]): Promise<void>;
}

export interface PodmanContainer {
  readonly id: string;
  /** Path of its network namespace, as the node sees it. */
  readonly netns: string;
  readonly networks: Readonly<
    Record<string, { readonly IPAddress: string; readonly MacAddress: string }>
  >;
}

export function createPodman(node: RuntimeNode): Podman {
  const directory = join(node.directory, 'podman');
  const rootfs = join(directory, 'rootfs');
  const containersConf = join(directory, 'containers.conf');
  const storageConf = join(directory, 'storage.conf');
  mkdirSync(directory);
  writePauseRootfs(rootfs);
  writeFileSync(containersConf, containersConfiguration(node));
  writeFileSync(storageConf, storageConfiguration);
  const variables = [`CONTAINERS_CONF=${containersConf}`, `CONTAINERS_STORAGE_CONF=${storageConf}`];
  const run: Podman['run'] = async (...args) => {
    const { stdout } = await node.exec('env', [...variables, 'podman', ...args]);
    return stdout;
  };
  return {
    run,
    async start(name, ...options) {
      const place = ['--cgroup-parent', node.cgroupParent, '--rootfs'];
      const id = await run('run', '-d', '--name', name, ...options, ...place, rootfs, '/pause');
      const format = '{{json .NetworkSettings}}';
      const settings = JSON.parse(await run('inspect', '--format', format, name)) as {
        SandboxKey: string;
        Networks: PodmanContainer['networks'];
      };
      return { id, netns: settings.SandboxKey, networks: settings.Networks };
    },
    async remove(...names) {
      await run('rm', '--force', '--time', '0', ...names);
    },
  };
}

function containersConfiguration(node: RuntimeNode): string {
  return `[network]
network_backend = "cni"
cni_plugin_dirs = [${JSON.stringify(node.binDir)}]
network_config_dir = ${JSON.stringify(node.confDir)}
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
`;
}

/** Plain directories: need no support of the kernel or the file system below. */
const storageConfiguration = `[storage]
driver = "vfs"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
`;

/** Where things are in a run's folder, and where the programs come from. */
import { join } from 'node:path';
import type { RunFolder } from './run-folder.ts';
import type { NodeName } from './topology.ts';

/** The built programs: what `npm run build` puts in `dist/`. */
export interface Programs {
  /** Runs the bundles. */
  readonly node: string;
  readonly dist: string;
}

export interface NodeLayout {
  /** podwire-node's configuration file. */
  readonly config: string;
  readonly runDir: string;
  readonly cniConfDir: string;
  readonly cniDataDir: string;
  readonly stateDir: string;
}

export function nodeLayout(run: RunFolder, node: NodeName): NodeLayout {
  const folder = join(run.path, node);
  return {
    config: join(folder, 'podwire-node.yaml'),
    runDir: join(folder, 'run'),
    cniConfDir: join(folder, 'net.d'),
    cniDataDir: join(folder, 'networks'),
    stateDir: join(folder, 'state'),
  };
}

/** Plugins by their types, as in /opt/cni/bin. */
export function cniBinDir(run: RunFolder): string {
  return join(run.path, 'cni-bin');
}

/** For who works on the machine itself: the API server on 127.0.0.1. */
export function machineKubeconfig(run: RunFolder): string {
  return join(run.path, 'kubeconfig');
}

/** For the nodes: the API server in the control plane's namespace. */
export function nodeKubeconfig(run: RunFolder): string {
  return join(run.path, 'kubeconfig-nodes');
}

/** A command line that runs one of the bundles. */
export function bundle(programs: Programs, name: string, ...args: string[]): [string, ...string[]] {
  return [
    programs.node,
    '--disable-warning=ExperimentalWarning',
    join(programs.dist, name),
    ...args,
  ];
}

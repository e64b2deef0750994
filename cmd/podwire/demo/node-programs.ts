/** What runs on a node of the demo beside its pods. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { stringify } from 'yaml';
import { agentSocket } from './agent-client.ts';
import { bundle, nodeKubeconfig, nodeLayout, type Programs } from './layout.ts';
import { agentUp } from './pod-sandbox.ts';
import { startProgram, type Program } from './processes.ts';
import type { RunFolder } from './run-folder.ts';
import { clusterCIDRs, type Host, type NodeName } from './topology.ts';

/** How packets travel between nodes: a part of podwire-node's configuration. */
export interface BackendChoice {
  readonly backend: 'vxlan' | 'host-gw';
  readonly directRouting: boolean;
}

/** Writes podwire-node's configuration for a node; it is read when the daemon starts. */
export function configureNode(run: RunFolder, node: NodeName, choice: BackendChoice): void {
  const { config, runDir, cniConfDir, cniDataDir, stateDir } = nodeLayout(run, node);
  for (const folder of [runDir, cniConfDir, cniDataDir]) mkdirSync(folder, { recursive: true });
  writeFileSync(config, stringify({ ...choice, runDir, cniConfDir, cniDataDir, stateDir }));
}

export function startNodeDaemon(
  run: RunFolder,
  programs: Programs,
  host: Host & { name: NodeName },
): Program {
  const { config } = nodeLayout(run, host.name);
  const options = [
    '--kubeconfig',
    nodeKubeconfig(run),
    '--node-name',
    host.name,
    '--config',
    config,
  ];
  const [file, ...args] = bundle(programs, 'podwire-node', ...options);
  return startProgram(run, {
    name: `${host.name}-podwire-node`,
    namespace: host.namespace,
    file,
    args,
  });
}

export function startProxyDaemon(run: RunFolder, programs: Programs, host: Host): Program {
  const [file, ...args] = bundle(
    programs,
    'podwire-proxy',
    '--kubeconfig',
    nodeKubeconfig(run),
    '--hostname-override',
    host.name,
    '--cluster-cidr',
    clusterCIDRs.join(','),
    '--proxy-mode',
    'iptables',
    // How soon rules that somebody deletes come back; half a minute is long to watch.
    '--iptables-sync-period',
    '5s',
  );
  return startProgram(run, {
    name: `${host.name}-podwire-proxy`,
    namespace: host.namespace,
    file,
    args,
  });
}

/** The agent that calls from a host; it answers too when `port` is given. */
export async function startHostAgent(
  run: RunFolder,
  programs: Programs,
  host: Host,
  port?: number,
): Promise<Program> {
  const control = agentSocket(run.path, host.name);
  const serve = port === undefined ? [] : ['--port', String(port)];
  const options = ['--name', host.name, '--control', control, ...serve];
  const [file, ...args] = bundle(programs, 'podwire', 'demo-agent', ...options);
  const program = startProgram(run, {
    name: `${host.name}-agent`,
    namespace: host.namespace,
    file,
    args,
  });
  await agentUp(program, control);
  return program;
}

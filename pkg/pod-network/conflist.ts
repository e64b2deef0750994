/**
 * The CNI network configuration list the container runtime reads (CNI spec 1.1.0, "Network
 * configuration format"). That it exists tells the runtime that the node's pod network is ready.
 */

export interface ConflistOptions {
  /** Where `podwire-cni` finds the node's facts. */
  readonly nodeFile: string;
  /** Where it keeps which address belongs to which pod. */
  readonly ipamDataDir: string;
  /** Where it remembers what it did for each pod. */
  readonly stateDir: string;
}

/** The plugin's own defaults: not written, so that the usual file holds no paths. */
export const defaultNodeFile = '/run/podwire/node.json';
export const defaultIpamDataDir = '/var/lib/cni/networks';
export const defaultStateDir = '/var/lib/podwire';

/** What a runtime may pass for one pod: it passes nothing that is not declared. */
const capabilities = { portMappings: true, bandwidth: true, ips: true, mac: true } as const;

/** The file's text: equal options give equal bytes. */
export function conflistText(options: ConflistOptions): string {
  const plugin = {
    type: 'podwire',
    bridge: 'cni0',
    capabilities,
    ...(options.nodeFile === defaultNodeFile ? {} : { nodeFile: options.nodeFile }),
    ...(options.ipamDataDir === defaultIpamDataDir
      ? {}
      : { ipam: { dataDir: options.ipamDataDir } }),
    ...(options.stateDir === defaultStateDir ? {} : { stateDir: options.stateDir }),
  };
  return `${JSON.stringify({ cniVersion: '1.0.0', name: 'podwire', plugins: [plugin] }, undefined, 2)}\n`;
}

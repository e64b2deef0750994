/**
 * The CNI network configuration list the container runtime reads (CNI spec 1.1.0, "Network
 * configuration format"). That it exists tells the runtime that the node's pod network is ready.
 */

export interface ConflistOptions {
  /** Where `podwire-cni` finds the node's facts. */
  readonly nodeFile: string;
  /** Where it keeps which address belongs to which pod. */
  readonly ipamDataDir: string;
}

/** The plugin's own defaults: not written, so that the usual file holds no paths. */
export const defaultNodeFile = '/run/podwire/node.json';
export const defaultIpamDataDir = '/var/lib/cni/networks';

/** The file's text: equal options give equal bytes. */
export function conflistText(options: ConflistOptions): string {
  const plugin = {
    type: 'podwire',
    bridge: 'cni0',
    ...(options.nodeFile === defaultNodeFile ? {} : { nodeFile: options.nodeFile }),
    ...(options.ipamDataDir === defaultIpamDataDir
      ? {}
      : { ipam: { dataDir: options.ipamDataDir } }),
  };
  return `${JSON.stringify({ cniVersion: '1.0.0', name: 'podwire', plugins: [plugin] }, undefined, 2)}\n`;
}

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
  /** As ports of a bridge, or each on a link of its own. */
  readonly mode: 'bridge' | 'routed';
  readonly antiSpoofing: boolean;
  /** Whether runtimes may ask for ports of the node. */
  readonly hostPorts: boolean;
  /** Whether runtimes may ask for limits. */
  readonly bandwidth: boolean;
  readonly addressCooldownSeconds: number;
}

/** The plugin's own defaults: not written, so that the usual file holds no paths. */
export const defaultNodeFile = '/run/podwire/node.json';
export const defaultIpamDataDir = '/var/lib/cni/networks';
export const defaultStateDir = '/var/lib/podwire';

/** The plugin's own default: an address rests as long before another pod gets it. */
export const defaultCooldownSeconds = 60;

/** The file's text: equal options give equal bytes. What is the plugin's default is not written. */
export function conflistText(options: ConflistOptions): string {
  const { mode, antiSpoofing, nodeFile, stateDir } = options;
  const ipam = {
    ...(options.ipamDataDir === defaultIpamDataDir ? {} : { dataDir: options.ipamDataDir }),
    ...(options.addressCooldownSeconds === defaultCooldownSeconds
      ? {}
      : { cooldownSeconds: options.addressCooldownSeconds }),
  };
  const plugin = {
    type: 'podwire',
    ...(mode === 'bridge' ? { bridge: 'cni0' } : { mode }),
    capabilities: capabilitiesOf(options),
    ...(antiSpoofing ? {} : { antiSpoofing }),
    ...(nodeFile === defaultNodeFile ? {} : { nodeFile }),
    ...(Object.keys(ipam).length === 0 ? {} : { ipam }),
    ...(stateDir === defaultStateDir ? {} : { stateDir }),
  };
  // A runtime that knows the list speaks the newest it can: GC and STATUS came with 1.1.0.
  const versions = { cniVersion: '1.0.0', cniVersions: ['1.0.0', '1.1.0'] };
  return `${JSON.stringify({ ...versions, name: 'podwire', plugins: [plugin] }, undefined, 2)}\n`;
}

/** What a runtime may pass for one pod: it passes nothing that is not declared. */
function capabilitiesOf({ hostPorts, bandwidth }: ConflistOptions): object {
  return {
    ...(hostPorts ? { portMappings: true } : {}),
    ...(bandwidth ? { bandwidth: true } : {}),
    ips: true,
    mac: true,
  };
}

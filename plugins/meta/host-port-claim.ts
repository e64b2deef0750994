/** Who has which port of the host, as found in the kernel, whatever the backend. */
import { CniError } from '#pkg/cni/cni-error.ts';
import { specificHostIp, type PortMapping } from './portmap-config.ts';

/** The plugin's own error number: a port of the host is another container's. */
export const hostPortTaken = 100;

/** A host port that leads to a container. */
export interface HostPortClaim {
  readonly protocol: string;
  readonly hostPort: number;
  /** The only host address it is for; undefined for all. */
  readonly hostIp: string | undefined;
  /** The container's address. */
  readonly target: string;
  readonly network: string;
  readonly containerId: string;
  /** It holds only for packets that match something more. */
  readonly conditional: boolean;
}

export interface WantedPorts {
  readonly network: string;
  readonly conditional: boolean;
  readonly mappings: readonly PortMapping[];
}

/**
 * Refuses a port that another container has: packets can only go to one. With conditions, two
 * networks may share a port (one a network card each); whether theirs overlap is not for us to say.
 *
 * @param others claims of other containers
 * @throws {CniError} code 100 that names the owner
 */
export function refuseTakenPorts(wanted: WantedPorts, others: readonly HostPortClaim[]): void {
  for (const mapping of wanted.mappings) {
    const owner = others.find((claim) => overlaps(claim, mapping) && !mayShare(claim, wanted));
    if (owner === undefined) continue;
    const hostIp = specificHostIp(mapping);
    const port = `${hostIp === undefined ? '' : `${hostIp} `}${mapping.protocol} ${mapping.hostPort}`;
    throw new CniError(
      hostPortTaken,
      `Cannot map host port ${port}: container ${owner.containerId} of network ${owner.network} has it`,
      { hint: `it leads to ${owner.target}; delete that container, or choose another port` },
    );
  }
}

function overlaps(claim: HostPortClaim, mapping: PortMapping): boolean {
  const hostIp = specificHostIp(mapping);
  return (
    claim.protocol === mapping.protocol &&
    claim.hostPort === mapping.hostPort &&
    (claim.hostIp === undefined || hostIp === undefined || claim.hostIp === hostIp)
  );
}

function mayShare(claim: HostPortClaim, wanted: WantedPorts): boolean {
  return claim.network !== wanted.network && (claim.conditional || wanted.conditional);
}

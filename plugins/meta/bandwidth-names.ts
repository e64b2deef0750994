/** Names of the IFB devices of the bandwidth plugin. */
import type { Attachment } from '#pkg/cni/environment.ts';
import { referenceHash } from '#pkg/cni/reference-hash.ts';
import { shortHash } from '#pkg/cni/short-hash.ts';
import { podwireAlias } from '#pkg/host-network/object.ts';

const prefix = 'bwp';
const maxNameLength = 15;

/** The device of an attachment: "bwp" and 12 hex digits fill the 15 bytes of an interface name. */
export function ifbName(network: string, { containerId, ifName }: Attachment): string {
  const hash = shortHash(`${network}:${containerId}:${ifName}`);
  return `${prefix}${hash}`.slice(0, maxNameLength);
}

/**
 * What the reference plugin calls it. Its hash leaves out the interface, so that a container's
 * second one in the same network cannot be limited.
 */
export function referenceIfbName(network: string, { containerId }: Attachment): string {
  return `${prefix}${referenceHash(`${network}${containerId}`)}`.slice(0, maxNameLength);
}

/** Says whose the device is, for GC and for people. */
export function ifbAlias(network: string, { containerId, ifName }: Attachment): string {
  return `${ifbAliasStart(network)}${containerId} ${ifName}`.slice(0, maxAliasBytes);
}

/** How the alias of every device of the network starts; no link that is an attachment's has it. */
export function ifbAliasStart(network: string): string {
  return `${podwireAlias}-bandwidth ${network} `;
}

/** IFALIASZ (include/uapi/linux/if.h) counts the terminating zero. */
const maxAliasBytes = 255;

/** How rules say whose they are: DEL and GC find them by nothing else. */
import type { Attachment } from '#pkg/cni/environment.ts';
import { shortHash } from '#pkg/cni/short-hash.ts';

/**
 * "network container interface". nft takes comments of 128 bytes, so a long name is abbreviated to
 * "#" and a hash, which no name starts with.
 */
export function attachmentComment(network: string, { containerId, ifName }: Attachment): string {
  return `${abbreviate(network, maxNetwork)} ${abbreviate(containerId, maxContainerId)} ${ifName}`;
}

/**
 * Whether the comment is of this interface of this container, of whatever network: a network may
 * have been renamed since, and a container has an interface's name only once.
 */
export function isOfAttachment(text: string, { containerId, ifName }: Attachment): boolean {
  const [, id, name, ...rest] = text.split(' ');
  return id === abbreviate(containerId, maxContainerId) && name === ifName && rest.length === 0;
}

/** Whether the comment is of this network, and of none of the attachments. */
export function isStale(text: string, network: string, valid: readonly Attachment[]): boolean {
  return (
    text.startsWith(`${abbreviate(network, maxNetwork)} `) &&
    !valid.some((attachment) => isOfAttachment(text, attachment))
  );
}

const maxNetwork = 40;
const maxContainerId = 64;

function abbreviate(name: string, max: number): string {
  return name.length <= max ? name : `#${shortHash(name)}`;
}

/** The namespace CNI_NETNS names: required by ADD and CHECK, perhaps gone at DEL. */
import { isErrno } from '#pkg/errors/agent-error.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import { openNetns, type Netns } from '#pkg/netns/netns.ts';

/** @throws {CniError} code 8 when there is no namespace at the path */
export function openPodNetns(path: string): Netns {
  try {
    return openNetns(path);
  } catch (cause) {
    if (!isGone(cause)) throw cause;
    throw new CniError(cniCode.invalidNetns, `failed to open netns "${path}"`, { cause });
  }
}

/** Undefined when there is none any more: no path, nothing there, or what a reboot left of it. */
export function openPodNetnsIfThere(path: string | undefined): Netns | undefined {
  if (path === undefined) return undefined;
  try {
    return openNetns(path);
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}

function isGone(error: unknown): boolean {
  return isErrno(error, 'NetnsMissing') || isErrno(error, 'NetnsInvalid');
}

/** One at a time among the plugins of a node, where two would spoil each other's work. */
import { openOwnNetns } from '#pkg/netns/netns.ts';
import { LOCK_EX } from '#pkg/sys/constants.ts';
import type { Sys } from '#pkg/sys/sys.ts';

/**
 * Runs `fn` while no other process does so in this network namespace. flock(2) on the namespace's
 * own file needs no file of ours, and the kernel unlocks it when the process dies.
 */
export function withHostLock<T>(sys: Sys, fn: () => T): T {
  using lock = openOwnNetns();
  sys.flock(lock.fd, LOCK_EX);
  return fn();
}

/** How far the first lists of a fleet of daemons are spread. */

const fleetJitterMs = 5_000;

/**
 * Greatest random delay before the first list, in milliseconds. As Pods of a DaemonSet all daemons
 * of a cluster start together when it is rolled out, and would all list at once; elsewhere one
 * daemon is started by itself, and somebody waits for it.
 */
export function startJitterMs(env: Readonly<Record<string, string | undefined>>): number {
  return env['KUBERNETES_SERVICE_HOST'] === undefined ? 0 : fleetJitterMs;
}

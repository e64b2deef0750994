/** The kernel settings of connection tracking that kube-proxy's configuration asks for. */

/** The section `conntrack` of a KubeProxyConfiguration; 0 = leave the kernel's value alone. */
export interface ConntrackConfig {
  readonly maxPerCore: number;
  /** Counts only with maxPerCore. */
  readonly min: number;
  readonly tcpEstablishedTimeoutMs: number;
  readonly tcpCloseWaitTimeoutMs: number;
  readonly tcpBeLiberal: boolean;
  readonly udpTimeoutMs: number;
  readonly udpStreamTimeoutMs: number;
}

/** What else the proxy needs of connection tracking. */
export interface ConntrackNeeds extends ConntrackConfig {
  /** Each connection counts its packets and bytes; not wanted = left as it is. */
  readonly accounting: boolean;
}

export interface SysctlWrite {
  /** Below /proc/sys, with slashes. */
  readonly path: string;
  readonly value: string;
}

/** How many entries the table may have, and in how many buckets it has them. */
export const maxPath = pathOf('max');
export const bucketsPath = pathOf('buckets');

/** Large machines would otherwise spend gigabytes on a table that is never full. */
const maxScaled = 1_048_576;

/**
 * Settings that are not as wanted, in the order in which kube-proxy writes them. The size of the
 * table and of its hash are only ever raised: a larger value is the work of somebody who met the
 * limit. `min` holds also above the limit on what is scaled by cores, unlike in kube-proxy 1.36.
 *
 * @param current the value of a setting, undefined where the kernel has none
 */
export function conntrackSysctls(
  config: ConntrackNeeds,
  cores: number,
  current: (path: string) => string | undefined,
): readonly SysctlWrite[] {
  const max =
    config.maxPerCore > 0
      ? Math.max(Math.min(config.maxPerCore * cores, maxScaled), config.min)
      : 0;
  const wanted = [
    atLeast(maxPath, max),
    // The kernel's own ratio of entries to hash buckets is at most this.
    atLeast(bucketsPath, Math.floor(max / 4)),
    exactly(pathOf('tcp_timeout_established'), seconds(config.tcpEstablishedTimeoutMs)),
    exactly(pathOf('tcp_timeout_close_wait'), seconds(config.tcpCloseWaitTimeoutMs)),
    exactly(pathOf('tcp_be_liberal'), config.tcpBeLiberal ? 1 : 0),
    exactly(pathOf('udp_timeout'), seconds(config.udpTimeoutMs)),
    exactly(pathOf('udp_timeout_stream'), seconds(config.udpStreamTimeoutMs)),
    exactly(pathOf('acct'), config.accounting ? 1 : 0),
  ];
  return wanted.flatMap(({ isEnough, path, value }) => {
    if (value === 0) return [];
    const now = current(path);
    if (now !== undefined && isEnough(Number(now))) return [];
    return [{ path, value: String(value) }];
  });
}

interface Wanted {
  readonly path: string;
  /** 0 = whatever it is. */
  readonly value: number;
  readonly isEnough: (now: number) => boolean;
}

function atLeast(path: string, value: number): Wanted {
  return { path, value, isEnough: (now) => now >= value };
}

function exactly(path: string, value: number): Wanted {
  return { path, value, isEnough: (now) => now === value };
}

function pathOf(name: string): string {
  return `net/netfilter/nf_conntrack_${name}`;
}

/** Rounded up: to the kernel 0 seconds would mean no time at all. */
function seconds(ms: number): number {
  return Math.ceil(ms / 1000);
}

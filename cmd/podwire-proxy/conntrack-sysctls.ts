/** Sets connection tracking up as the configuration asks, when the proxy starts. */
import { cpus } from 'node:os';
import {
  bucketsPath,
  conntrackSysctls,
  maxPath,
  type ConntrackNeeds,
  type SysctlWrite,
} from '#pkg/conntrack/sysctls.ts';
import { readSysctl, writeSysctl } from '#pkg/sysctl/sysctl.ts';

export interface ConntrackHost {
  /** Cores of the machine, whatever share of them this process may use. */
  readonly cores: number;
  /** As in pkg/sysctl. */
  read(path: string): string | undefined;
  write(path: string, value: string): void;
}

const conntrackHost: ConntrackHost = {
  // More where a container may use fewer: the table is the machine's.
  cores: cpus().length,
  read: readSysctl,
  write: writeSysctl,
};

export interface ConntrackSetup {
  readonly written: readonly SysctlWrite[];
  /**
   * What the kernel refused, in words. Outside the machine's own network namespace it refuses
   * nf_conntrack_max; in a container without privileges, everything. The proxy works all the same.
   */
  readonly failures: readonly Error[];
}

/** Writes what differs; one setting that is refused does not keep the others from being written. */
export function applyConntrackSysctls(
  config: ConntrackNeeds,
  host: ConntrackHost = conntrackHost,
): ConntrackSetup {
  const written: SysctlWrite[] = [];
  const failures: Error[] = [];
  /** Paths that could not be read or written. */
  const refused = new Set<string>();
  const current = (path: string): string | undefined => {
    try {
      return host.read(path);
    } catch (error) {
      failures.push(asError(error));
      refused.add(path);
      return undefined;
    }
  };
  for (const setting of conntrackSysctls(config, host.cores, current)) {
    // What it is we do not know: it may be an admin's, and larger.
    if (refused.has(setting.path)) continue;
    // A hash for more entries than there may be: one refusal says it all.
    if (setting.path === bucketsPath && refused.has(maxPath)) continue;
    try {
      host.write(setting.path, setting.value);
      written.push(setting);
    } catch (error) {
      failures.push(asError(error));
      refused.add(setting.path);
    }
  }
  return { written, failures };
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

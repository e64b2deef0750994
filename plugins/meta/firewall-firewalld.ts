/**
 * firewalld, as the reference plugin uses it: a container's addresses become sources of a zone, for
 * as long as firewalld runs. It is spoken to over D-Bus by busctl(1), which is where systemd is.
 */
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import { formatAddress } from '#pkg/ip/address.ts';
import type { CniResult } from '#pkg/cni/result.ts';
import type { RunNetfilter } from './run-netfilter.ts';

/** Whether somebody answers as firewalld; false also where there is no D-Bus. */
export function isFirewalldRunning(run: RunNetfilter): boolean {
  const bus = 'org.freedesktop.DBus';
  try {
    const args = [bus, '/org/freedesktop/DBus', bus, 'NameHasOwner', 's', firewalld];
    return call(run, args) === 'b true';
  } catch (error) {
    if (isErrno(error, 'CommandMissing') || isErrno(error, 'CommandFailed')) return false;
    throw error;
  }
}

/** Each address of a result as firewalld has sources: "10.244.1.2/32". */
export function sourcesOf(result: CniResult | undefined): readonly string[] {
  return (result?.ips ?? []).map(({ address: { address } }) => {
    return `${formatAddress(address)}/${address.family === 'ip' ? 32 : 128}`;
  });
}

/** @throws {AgentError} CommandFailed: no such zone, or a source that is in another; none is added */
export function addSources(run: RunNetfilter, zone: string, sources: readonly string[]): void {
  const added: string[] = [];
  try {
    for (const source of sources) {
      if (unless(['ZONE_ALREADY_SET'], () => zoneCall(run, 'addSource', zone, source))) {
        added.push(source);
      }
    }
  } catch (error) {
    removeSources(run, zone, added);
    throw error;
  }
}

/** Sources that are not there count as removed. */
export function removeSources(run: RunNetfilter, zone: string, sources: readonly string[]): void {
  for (const source of sources) {
    // A zone that is gone has no sources; one in another zone is not ours.
    unless(['UNKNOWN_SOURCE', 'NOT_ENABLED', 'INVALID_ZONE', 'ZONE_CONFLICT'], () =>
      zoneCall(run, 'removeSource', zone, source),
    );
  }
}

/** The first source that is not in the zone. */
export function missingSource(
  run: RunNetfilter,
  zone: string,
  sources: readonly string[],
): string | undefined {
  return sources.find((source) => zoneCall(run, 'querySource', zone, source) !== 'b true');
}

const firewalld = 'org.fedoraproject.FirewallD1';

function zoneCall(run: RunNetfilter, method: string, zone: string, source: string): string {
  const path = '/org/fedoraproject/FirewallD1';
  return call(run, [firewalld, path, `${firewalld}.zone`, method, 'ss', zone, source]);
}

function call(run: RunNetfilter, args: readonly string[]): string {
  return run('busctl', ['--system', '--auto-start=no', '--timeout=10', 'call', ...args]).trim();
}

/** False where firewalld said one of these; it starts its messages with such a word. */
function unless(words: readonly string[], work: () => unknown): boolean {
  try {
    work();
    return true;
  } catch (error) {
    const said = error instanceof AgentError ? error.details?.['stderr'] : undefined;
    if (typeof said === 'string' && words.some((word) => said.includes(word))) return false;
    throw error;
  }
}

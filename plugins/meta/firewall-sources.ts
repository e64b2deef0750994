/**
 * Whose firewalld's sources are: firewalld does not say. So what is added is kept on disk before, one
 * record an attachment, and DEL without a result and GC go by that. It is below /run: like the
 * sources themselves it does not outlive the machine's boot.
 */
import {
  openAttachmentStore,
  readBootId,
  type AttachmentKey,
  type AttachmentStore,
  type StoredAttachment,
} from '#pkg/cni/attachment-store.ts';
import type { NetworkConfig } from '#pkg/cni/config.ts';
import type { Attachment } from '#pkg/cni/environment.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { addSources, isFirewalldRunning, removeSources } from './firewall-firewalld.ts';
import type { RunNetfilter } from './run-netfilter.ts';

export interface ZoneSources {
  readonly zone: string;
  /** As sourcesOf() has them. */
  readonly sources: readonly string[];
}

export interface SourceTools {
  readonly store: AttachmentStore;
  readonly run: RunNetfilter;
}

/** Of this configuration's `dataDir`, whatever else that says: DEL must work. */
export function openSourceStore(sys: Sys, { fields }: NetworkConfig): AttachmentStore {
  const { dataDir } = fields.values;
  const isSet = typeof dataDir === 'string' && dataDir !== '';
  return openAttachmentStore(sys, isSet ? dataDir : '/run/cni/firewall');
}

/**
 * Remembers the sources as this attachment's, then adds them; a failure leaves both as they were.
 *
 * @throws {AgentError} CommandFailed
 */
export function claimSources(
  { store, run }: SourceTools,
  key: AttachmentKey,
  claim: ZoneSources,
): void {
  const found = store.find(key);
  const before = found?.network === key.network ? found : undefined;
  store.put(key, { zones: merge([...zonesOf(before), claim]) });
  try {
    addSources(run, claim.zone, claim.sources);
  } catch (error) {
    if (before?.document === undefined) store.delete(key);
    else store.put(key, before.document);
    throw error;
  }
}

/**
 * Removes an attachment's sources, but for those that by now are another's too, and forgets it.
 * Idempotent. firewalld has no sources when it does not run: they are not kept.
 *
 * @param told what else is known to be its: of the result that a runtime kept
 */
export function releaseSources(
  { store, run }: SourceTools,
  key: AttachmentKey,
  told?: ZoneSources,
): void {
  const found = store.find(key);
  const claims = merge([...zonesOf(found), ...(told === undefined ? [] : [told])]);
  const wanted = claims.some(({ sources }) => sources.length > 0);
  if (wanted && isFirewalldRunning(run)) {
    const others = sourcesOfOthers(store, key);
    for (const { zone, sources } of claims) {
      removeSources(
        run,
        zone,
        sources.filter((source) => !others.has(source)),
      );
    }
  }
  store.delete(found ?? key);
}

/** Releases what belongs to this network and to none of the attachments. */
export function collectSources(
  tools: SourceTools,
  network: string,
  valid: readonly Attachment[],
): void {
  for (const stored of tools.store.list(network)) {
    if (!valid.some((attachment) => isSame(attachment, stored))) releaseSources(tools, stored);
  }
}

/** A DEL may come late, when the address has long been given to another container. */
function sourcesOfOthers(store: AttachmentStore, own: Attachment): ReadonlySet<string> {
  const bootId = readBootId();
  const others = store.list().filter((a) => !isSame(a, own) && a.bootId === bootId);
  return new Set(others.flatMap(zonesOf).flatMap(({ sources }) => sources));
}

/** Each zone and each of its sources once. */
function merge(claims: readonly ZoneSources[]): readonly ZoneSources[] {
  const byZone = Map.groupBy(claims, ({ zone }) => zone);
  return [...byZone].map(([zone, of]) => ({
    zone,
    sources: [...new Set(of.flatMap(({ sources }) => sources))],
  }));
}

/** None of a file that does not hold a record: its process was killed before it added any. */
function zonesOf(stored: StoredAttachment | undefined): readonly ZoneSources[] {
  const zones = stored?.document?.['zones'];
  return Array.isArray(zones) ? zones.flatMap((item: unknown) => readZone(item) ?? []) : [];
}

function readZone(value: unknown): ZoneSources | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const { zone, sources } = value as Readonly<Record<string, unknown>>;
  if (typeof zone !== 'string' || !Array.isArray(sources)) return undefined;
  return { zone, sources: sources.filter((source: unknown) => typeof source === 'string') };
}

function isSame(a: Attachment, b: Attachment): boolean {
  return a.containerId === b.containerId && a.ifName === b.ifName;
}

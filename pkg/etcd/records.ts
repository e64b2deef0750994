/** etcd's messages as ours: text for bytes, undefined for what is not there. */
import { AgentError } from '#pkg/errors/agent-error.ts';

export interface EtcdEntry {
  readonly key: string;
  readonly value: string;
  readonly createRevision: string;
  readonly modRevision: string;
  /** ID of the lease it ends with; undefined = it stays. */
  readonly lease: string | undefined;
}

export type EtcdEvent =
  | { readonly kind: 'put'; readonly entry: EtcdEntry }
  | { readonly kind: 'delete'; readonly key: string };

export interface EtcdEvents {
  readonly revision: string;
  readonly events: readonly EtcdEvent[];
}

/** A condition of a transaction: the key was created by this revision; 0 = is not there. */
export interface EtcdCondition {
  readonly key: string;
  readonly createRevision: string;
}

export type EtcdChange =
  | {
      readonly op: 'put';
      readonly key: string;
      readonly value: string;
      readonly lease?: string | undefined;
    }
  | { readonly op: 'delete'; readonly key: string };

/** Why etcd ended a watch: EtcdCompacted when its past is gone, so that all must be listed anew. */
export function watchCanceled(
  prefix: string,
  { compactRevision, cancelReason }: WatchResponse,
): Error {
  if (compactRevision !== '0') {
    const message = `Cannot watch ${prefix} in etcd from there: what came before revision ${compactRevision} is compacted`;
    return new AgentError('EtcdCompacted', message);
  }
  return new AgentError('EtcdRefused', `Cannot watch ${prefix} in etcd: ${cancelReason}`);
}

interface RawEntry {
  readonly key: Buffer;
  readonly value: Buffer;
  readonly createRevision: string;
  readonly modRevision: string;
  readonly lease: string;
}

export interface RangeResponse {
  readonly header: { readonly revision: string };
  readonly kvs: readonly RawEntry[];
}

export interface TxnResponse {
  readonly header: { readonly revision: string };
  readonly succeeded: boolean;
}

export interface WatchResponse {
  readonly header: { readonly revision: string };
  readonly canceled: boolean;
  /** "0" = none. */
  readonly compactRevision: string;
  readonly cancelReason: string;
  readonly events: readonly { readonly type: 'PUT' | 'DELETE'; readonly kv: RawEntry }[];
}

/** Bytes as text: flannel's keys and values are. */
export function entryOf({ key, value, lease, createRevision, modRevision }: RawEntry): EtcdEntry {
  return {
    key: key.toString(),
    value: value.toString(),
    createRevision,
    modRevision,
    lease: lease === '0' ? undefined : lease,
  };
}

/** What happened to one key. */
export function eventOf({ type, kv }: WatchResponse['events'][number]): EtcdEvent {
  if (type === 'DELETE') return { kind: 'delete', key: kv.key.toString() };
  return { kind: 'put', entry: entryOf(kv) };
}

/** A change as a part of a transaction. */
export function operationOf(change: EtcdChange): object {
  const key = bytes(change.key);
  if (change.op === 'delete') return { requestDeleteRange: { key } };
  return { requestPut: { key, value: bytes(change.value), lease: change.lease ?? '0' } };
}

/** The first key after all that start so. */
export function endOfPrefix(prefix: string): Buffer {
  const end = bytes(prefix);
  const last = end.length - 1;
  end[last] = (end[last] ?? 0) + 1;
  return end;
}

export function bytes(text: string): Buffer {
  return Buffer.from(text);
}

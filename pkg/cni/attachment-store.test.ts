import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openNodeSys } from '#pkg/sys/node-ffi.ts';
import { openAttachmentStore, readBootId, type AttachmentStore } from './attachment-store.ts';

let directory: string;
let store: AttachmentStore;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'podwire-store-'));
  store = openAttachmentStore(openNodeSys(), join(directory, 'attachments'));
});
afterEach(() => rmSync(directory, { recursive: true }));

const key = { network: 'pods', containerId: 'abc', ifName: 'eth0' };
const other = { ...key, containerId: 'def' };
const file = (name: string): string => join(directory, 'attachments', name);

describe('the attachment store', () => {
  it('finds what was put, until it is deleted', () => {
    expect([store.has(key), store.find(key), store.list()]).toEqual([false, undefined, []]);
    store.put(key, { mode: 'bridge' });
    store.put(key, { mode: 'routed' });
    const stored = { ...key, bootId: readBootId(), document: { mode: 'routed' } };
    expect(store.find(key)).toMatchObject(stored);
    expect(store.list('pods')).toMatchObject([stored]);
    expect([store.has(key), store.list('others')]).toEqual([true, []]);
    store.delete(key);
    store.delete(key);
    expect([store.has(key), store.list()]).toEqual([false, []]);
  });

  it('finds what is retired, and does not count it among those that are kept', () => {
    store.put(key, { mode: 'bridge' });
    store.put(other, {});
    expect(store.listKept()).toMatchObject([key, other]);
    store.retire(key);
    store.retire(key);
    const retired = { ...key, document: { mode: 'bridge' }, isKept: false };
    expect(store.find(key)).toMatchObject(retired);
    expect(store.find({ ...key, network: 'renamed' })).toMatchObject(retired);
    expect(store.list().filter(({ isKept }) => !isKept)).toMatchObject([retired]);
    expect([store.has(key), store.isKept(key)]).toEqual([true, false]);
    expect(store.listKept()).toMatchObject([other]);
    store.delete(key);
    expect(store.list()).toMatchObject([other]);
  });

  it('finds an attachment under the name its network had', () => {
    store.put(key, {});
    expect(store.find({ ...key, network: 'renamed' })?.network).toBe('pods');
    expect(store.find({ ...key, ifName: 'net1' })).toBeUndefined();
  });

  it('keeps IDs apart that are too long for a file name', () => {
    const long = { ...key, containerId: 'x'.repeat(300) };
    store.put(long, { of: 'x' });
    store.put({ ...long, containerId: `${long.containerId}y` }, { of: 'y' });
    expect(store.find(long)?.document).toMatchObject({ of: 'x' });
    expect(store.list().map(({ containerId }) => containerId.length)).toEqual([300, 301]);
  });

  it.each(['', '\0\0\0', '[1]', '{"a"'])('lists a file that holds %j without document', (text) => {
    store.put(key, {});
    writeFileSync(file('pods/abc:eth0'), text);
    expect(store.list()).toEqual([
      { ...key, bootId: undefined, document: undefined, isKept: true },
    ]);
  });

  it('lists and deletes what a killed process began to write', () => {
    mkdirSync(file('pods'), { recursive: true });
    writeFileSync(file('pods/.abc:eth0'), '{');
    expect(store.list()).toEqual([
      { ...key, bootId: undefined, document: undefined, isKept: false },
    ]);
    expect(store.has(key)).toBe(false);
    store.delete(key);
    expect(readdirSync(file('pods'))).toEqual([]);
  });

  it('hands out attachments of earlier boots, once', () => {
    const reclaimed: string[] = [];
    const reclaim = (network = 'pods'): void =>
      store.reclaimEarlierBoots(network, ({ containerId }) => reclaimed.push(containerId));
    store.put(key, {});
    store.put(other, {});
    reclaim();
    expect(reclaimed).toEqual([]);
    for (const name of ['pods/abc:eth0', 'pods/.boot']) {
      const text = readFileSync(file(name), 'utf8').replace(readBootId(), 'an earlier one');
      writeFileSync(file(name), text);
    }
    reclaim('others');
    reclaim();
    reclaim();
    expect(reclaimed).toEqual(['abc']);
    expect(store.list().map(({ containerId }) => containerId)).toEqual(['def']);
  });

  it('tries again when taking back failed', () => {
    store.put(key, {});
    const old = readFileSync(file('pods/abc:eth0'), 'utf8').replace(readBootId(), 'old');
    writeFileSync(file('pods/abc:eth0'), old);
    const failing = (): never => {
      throw new Error('busy');
    };
    expect(() => store.reclaimEarlierBoots('pods', failing)).toThrow('busy');
    const reclaimed: string[] = [];
    store.reclaimEarlierBoots('pods', ({ containerId }) => reclaimed.push(containerId));
    expect(reclaimed).toEqual(['abc']);
  });
});

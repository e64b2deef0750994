import { mkdir, mkdtemp, rename, rm, symlink, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Clock } from '#pkg/clock/clock.ts';
import { proxyConfig } from '#pkg/config/proxy-config.ts';
import { liveView, watchFile } from './live-config.ts';

it('a live view shows the present configuration, also when it is spread', () => {
  const defaults = proxyConfig({});
  let current = defaults;
  const view = liveView(() => current);
  expect({ ...view }).toEqual(defaults);
  current = { ...defaults, verbosity: 4 };
  expect(view.verbosity).toBe(4);
  expect({ ...view }.verbosity).toBe(4);
});

describe('watchFile()', () => {
  let dir: string;
  let stop: AbortController;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'podwire-live-'));
    stop = new AbortController();
  });
  afterEach(async () => {
    stop.abort();
    await rm(dir, { recursive: true, force: true });
  });

  /** A clock that lets the watch look when the test says so, and waits until it has looked. */
  function steps(): { readonly clock: Clock; readonly look: () => Promise<void> } {
    let wake: () => void = () => undefined;
    let asleep = Promise.withResolvers<void>();
    return {
      clock: {
        now: () => 0,
        monotonicMs: () => 0,
        sleep: () => {
          const slept = new Promise<void>((resolve) => (wake = resolve));
          asleep.resolve();
          return slept;
        },
      },
      look: async () => {
        await asleep.promise;
        asleep = Promise.withResolvers<void>();
        wake();
        await asleep.promise;
      },
    };
  }

  async function watch(
    path: string,
  ): Promise<{ changes: () => number; look: () => Promise<void> }> {
    const { clock, look } = steps();
    let count = 0;
    const onChange = async (): Promise<void> => void (count += 1);
    void watchFile(path, { clock, onChange }, stop.signal);
    await look();
    return { changes: () => count, look };
  }

  it('tells of a file that was renamed over the old one, once', async () => {
    const path = join(dir, 'config');
    await writeFile(path, 'one');
    const { changes, look } = await watch(path);
    expect(changes()).toBe(0);
    await writeFile(`${path}.new`, 'two');
    await rename(`${path}.new`, path);
    await look();
    // It may still be written to.
    expect(changes()).toBe(0);
    await look();
    await look();
    expect(changes()).toBe(1);
  });

  it('tells of a ConfigMap whose links were swapped', async () => {
    for (const version of ['..v1', '..v2']) {
      await mkdir(join(dir, version));
      await writeFile(join(dir, version, 'config.conf'), version);
    }
    await symlink('..v1', join(dir, '..data'));
    await symlink('..data/config.conf', join(dir, 'config.conf'));
    const { changes, look } = await watch(join(dir, 'config.conf'));
    await symlink('..v2', join(dir, '..data_tmp'));
    await rename(join(dir, '..data_tmp'), join(dir, '..data'));
    await look();
    await look();
    expect(changes()).toBe(1);
  });

  it('waits while a file is being written, and while it is away', async () => {
    const path = join(dir, 'config');
    await writeFile(path, 'one');
    const { changes, look } = await watch(path);
    for (const text of ['t', 'tw', 'two']) {
      await writeFile(path, text);
      await look();
      expect(changes()).toBe(0);
    }
    await unlink(path);
    await look();
    await look();
    expect(changes()).toBe(0);
    await writeFile(path, 'three');
    await look();
    await look();
    expect(changes()).toBe(1);
  });
});

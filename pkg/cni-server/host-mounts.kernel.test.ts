import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'podwire-mounts-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

it('shows one thread the files of another mount namespace, and the others their own', async () => {
  const file = join(directory, 'file');
  writeFileSync(file, 'ours');
  const script = `mount -t tmpfs none ${directory} && printf theirs > ${file} && echo ready && exec sleep 60`;
  const host = spawn('unshare', ['--mount', 'sh', '-c', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    await once(host.stdout, 'data');
    const program = join(import.meta.dirname, 'testdata/host-mounts.ts');
    const namespace = `/proc/${host.pid}/ns/mnt`;
    const seen = execFileSync(process.execPath, [program, namespace, file], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    expect(JSON.parse(seen.toString())).toEqual(['ours', 'theirs', 'ours']);
  } finally {
    const ended = once(host, 'exit');
    host.kill('SIGKILL');
    await ended;
  }
});

/** An image whose only file is a program that waits: made here, so that nothing is downloaded. */
import { createHash } from 'node:crypto';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { runCommand } from '#pkg/exec/run.ts';

export const pauseImageName = 'podwire.test/pause:1';

/** The program is written in machine code of this processor only. */
export const pauseRunsHere = process.arch === 'x64';

const timeoutMs = 20_000;

/** Writes the image into `directory` as an OCI archive, and returns the file's path. */
export async function writePauseImage(directory: string): Promise<string> {
  const layout = join(directory, 'image');
  const rootfs = join(directory, 'rootfs');
  mkdirSync(join(layout, 'blobs/sha256'), { recursive: true });
  writePauseRootfs(rootfs);
  const layerFile = join(directory, 'layer.tar');
  await runCommand('tar', ['-C', rootfs, '-cf', layerFile, 'pause'], { timeoutMs });
  const blob = (bytes: Buffer): { digest: string; size: number } => {
    const hash = createHash('sha256').update(bytes).digest('hex');
    writeFileSync(join(layout, 'blobs/sha256', hash), bytes);
    return { digest: `sha256:${hash}`, size: bytes.length };
  };
  const layer = blob(readFileSync(layerFile));
  const config = blob(
    json({
      architecture: 'amd64',
      os: 'linux',
      config: { Entrypoint: ['/pause'] },
      rootfs: { type: 'layers', diff_ids: [layer.digest] },
    }),
  );
  const media = 'application/vnd.oci.image';
  const manifest = blob(
    json({
      schemaVersion: 2,
      mediaType: `${media}.manifest.v1+json`,
      config: { mediaType: `${media}.config.v1+json`, ...config },
      layers: [{ mediaType: `${media}.layer.v1.tar`, ...layer }],
    }),
  );
  const annotations = { 'io.containerd.image.name': pauseImageName };
  const entry = { mediaType: `${media}.manifest.v1+json`, ...manifest, annotations };
  writeFileSync(
    join(layout, 'index.json'),
    json({
      schemaVersion: 2,
      manifests: [{ ...entry, platform: { architecture: 'amd64', os: 'linux' } }],
    }),
  );
  writeFileSync(join(layout, 'oci-layout'), json({ imageLayoutVersion: '1.0.0' }));
  const archive = join(directory, 'pause.tar');
  await runCommand('tar', ['-C', layout, '-cf', archive, '.'], { timeoutMs });
  return archive;
}

/** A root file system of the program alone, "/pause". */
export function writePauseRootfs(rootfs: string): void {
  mkdirSync(rootfs, { recursive: true });
  writeFileSync(join(rootfs, 'pause'), pauseProgram());
  chmodSync(join(rootfs, 'pause'), 0o755);
}

/** An ELF file of one segment: for ever, pause(2). */
function pauseProgram(): Buffer {
  // mov eax, 34; syscall; jmp to the start
  const code = Buffer.from('b8220000000f05ebf7', 'hex');
  const headersBytes = 64 + 56;
  const address = 0x40_0000n;
  const file = Buffer.alloc(headersBytes);
  file.write('\x7fELF\x02\x01\x01', 'latin1');
  file.writeUInt16LE(2, 16); // ET_EXEC
  file.writeUInt16LE(62, 18); // EM_X86_64
  file.writeUInt32LE(1, 20);
  file.writeBigUInt64LE(address + BigInt(headersBytes), 24); // e_entry
  file.writeBigUInt64LE(64n, 32); // e_phoff
  file.writeUInt16LE(64, 52);
  file.writeUInt16LE(56, 54);
  file.writeUInt16LE(1, 56);
  const size = BigInt(headersBytes + code.length);
  file.writeUInt32LE(1, 64); // PT_LOAD
  file.writeUInt32LE(5, 68); // PF_R | PF_X
  file.writeBigUInt64LE(address, 80);
  file.writeBigUInt64LE(address, 88);
  file.writeBigUInt64LE(size, 96);
  file.writeBigUInt64LE(size, 104);
  file.writeBigUInt64LE(0x1000n, 112);
  return Buffer.concat([file, code]);
}

function json(value: object): Buffer {
  return Buffer.from(JSON.stringify(value));
}

/** Whether KVM works here: a device node is no proof, it may hang in a machine that is itself one. */
import {
  existsSync,
  globSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { cacheFolder } from './debian-package.ts';
import { writeImage } from './image.ts';
import { runMachine } from './machine.ts';
import { qemuCommand, type Accelerator } from './qemu.ts';
import { UnnamedFile } from '#hack/unnamed-file.ts';

/** A machine that works turns itself off within one. */
const probeSeconds = 5;
const kvmDevice = '/dev/kvm';

export interface Probe {
  readonly kernelImage: string;
  readonly busybox: string;
  readonly signal: AbortSignal;
  /** Other places and times than the usual: for tests. */
  readonly device?: string;
  readonly answers?: string;
  readonly timeoutSeconds?: number;
}

/** Boots a kernel under KVM and sees whether it ends; the answer is kept until the machine boots. */
export async function chooseAccelerator(probe: Probe): Promise<Accelerator> {
  const { answers = cacheFolder, device = kvmDevice } = probe;
  if (!existsSync(device)) return 'tcg';
  const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  const answer = join(answers, `accelerator-${bootId}`);
  if (existsSync(answer)) return readFileSync(answer, 'utf8') === 'kvm' ? 'kvm' : 'tcg';
  const found = (await bootsUnderKvm(probe)) ? 'kvm' : 'tcg';
  if (probe.signal.aborted) return found;
  keep(found, answer, answers);
  return found;
}

/** Whole or not at all, and in the place of the answers of former boots. */
function keep(found: Accelerator, answer: string, answers: string): void {
  mkdirSync(answers, { recursive: true });
  const former = globSync(join(answers, 'accelerator-*'));
  const unfinished = `${answer}.${process.pid}`;
  writeFileSync(unfinished, found);
  renameSync(unfinished, answer);
  for (const path of former) if (!path.startsWith(answer)) rmSync(path, { force: true });
}

async function bootsUnderKvm({
  busybox,
  kernelImage,
  signal,
  timeoutSeconds = probeSeconds,
}: Probe): Promise<boolean> {
  using initrd = new UnnamedFile();
  using console = new UnnamedFile();
  using exitCode = new UnnamedFile();
  writeImage(initrd.fd, { busybox, init: '#!/bin/busybox sh\n/bin/busybox poweroff -f\n' });
  const command = qemuCommand({ accelerator: 'kvm', kernelImage, shareRoot: false });
  const machine = { command, initrd, console, exitCode };
  try {
    const options = { timeoutSeconds, signal, onOutput: () => undefined };
    return (await runMachine(machine, options)) === 'by itself';
  } catch {
    return false;
  }
}

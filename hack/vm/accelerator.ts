/** Whether KVM works here: a device node is no proof, it may hang in a machine that is itself one. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cacheFolder } from './debian-package.ts';
import { writeImage } from './image.ts';
import { runMachine, type Accelerator } from './qemu.ts';

/** A machine that works turns itself off within one. */
const probeSeconds = 5;
const kvmDevice = '/dev/kvm';

export interface Probe {
  readonly kernelImage: string;
  readonly busybox: string;
  /** A folder for what this writes. */
  readonly work: string;
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
  mkdirSync(answers, { recursive: true });
  writeFileSync(answer, found);
  return found;
}

async function bootsUnderKvm({
  busybox,
  kernelImage,
  signal,
  timeoutSeconds = probeSeconds,
  work,
}: Probe): Promise<boolean> {
  const initrd = join(work, 'probe-initrd');
  writeImage(initrd, { busybox, init: '#!/bin/busybox sh\n/bin/busybox poweroff -f\n' });
  const machine = {
    accelerator: 'kvm',
    kernelImage,
    initrd,
    consoleLog: join(work, 'probe-console'),
    exitCodeFile: join(work, 'probe-exit-code'),
    shareRoot: false,
  } as const;
  try {
    const options = { timeoutSeconds, signal, onOutput: () => undefined };
    return (await runMachine(machine, options)) === 'by itself';
  } catch {
    return false;
  }
}

/** Changes a directory of CNI plugins, while runtimes start programs from it. */
import { chmod, copyFile, link, open, rename, rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { executableName, type InstallStep } from './plan.ts';
import { keptName, temporaryPrefix, type PluginSource } from './plugin-files.ts';

/**
 * Carries out one step. Whoever starts a program meanwhile finds the old file or the new one, whole;
 * one that runs keeps the file it runs from.
 */
export async function applyInstallStep(
  directory: string,
  step: InstallStep,
  source: PluginSource,
): Promise<void> {
  switch (step.op) {
    case 'clear':
      return await rm(join(directory, step.file), { recursive: true, force: true });
    case 'put':
      return await put(directory, step, source);
    case 'restore':
      return await rename(join(directory, keptName(step.name)), join(directory, step.name));
    case 'remove':
      return await rm(join(directory, step.name), { force: true });
  }
}

async function put(
  directory: string,
  { name, keepForeign }: Extract<InstallStep, { op: 'put' }>,
  { executable, launcher }: PluginSource,
): Promise<void> {
  const path = join(directory, name);
  const temporary = join(directory, `${temporaryPrefix}${name}`);
  const content = name === executableName ? executable : launcher;
  await rm(temporary, { force: true });
  if (content === undefined) await symlink(executableName, temporary);
  else await copyDurably(content, temporary);
  // A second name and not a move: the plugin is never missing.
  if (keepForeign) await keep(path, join(directory, keptName(name)));
  await rename(temporary, path);
}

async function copyDurably(from: string, to: string): Promise<void> {
  await copyFile(from, to);
  await chmod(to, 0o755);
  // Without it, a power cut can leave the renamed file empty, and every pod of the node without network.
  await using file = await open(to, 'r');
  await file.sync();
}

async function keep(path: string, kept: string): Promise<void> {
  try {
    await link(path, kept);
  } catch (error) {
    if (!isErrno(error, 'EEXIST')) throw error;
    // A package put its new version over ours since.
    await rm(kept);
    await link(path, kept);
  }
}

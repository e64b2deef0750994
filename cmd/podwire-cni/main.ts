/**
 * The CNI executable. One program for every plugin type: which one is the name it is called by, as
 * a runtime finds plugins by file name. This file owns the process; what a call means is
 * pkg/cni/protocol.ts, and what it does is in plugins/.
 */
import { readSync, writeSync } from 'node:fs';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { cniErrorDocument, CniError, cniCode } from '#pkg/cni/cni-error.ts';
import { parseEnvironment, type Environment } from '#pkg/cni/environment.ts';
import { answerCni } from '#pkg/cni/protocol.ts';
import { newestCniVersion } from '#pkg/cni/versions.ts';
import { isOwnNetns } from '#pkg/netns/netns.ts';
import { openBunSys } from '#pkg/sys/bun-ffi.ts';
import { isPluginName, pluginNames } from '#plugins/plugin-names.ts';
import { delegatesOf, pluginOf } from '#plugins/registry.ts';
import { programRunner } from './run-program.ts';

/**
 * Answers one call of a container runtime.
 *
 * @param argv the name the program is called by
 * @returns the exit code: 0, or 1 with an error document on standard output
 * @throws {AgentError} before there is a plugin to answer: an unknown name, a runtime without FFI
 */
export async function main(argv: readonly string[], env: Environment): Promise<0 | 1> {
  const called = argv[0]?.slice(argv[0].lastIndexOf('/') + 1) ?? '';
  // As the build calls it.
  const name = called === 'podwire-cni' ? 'podwire' : called;
  if (!isPluginName(name)) throw unknownName(name);
  const sys = openBunSys();
  const readConfig = once(readStdin);
  const delegates = await delegatesOf(name, sys, configOf(env, readConfig));
  const system = { sys, runProgram: programRunner(), delegates, die };
  const { exitCode, stdout, stderr } = answerCni(await pluginOf(name, system), {
    environment: env,
    readStdin: readConfig,
    isOwnNetns,
  });
  writeAll(2, stderr);
  writeAll(1, stdout);
  return exitCode;
}

function unknownName(name: string): CniError {
  return new CniError(
    cniCode.notAvailable,
    `Cannot act as plugin "${name}": expected to be called as one of ${pluginNames.join(', ')}`,
  );
}

/**
 * The configuration, where the call gets as far as reading one: nobody need write any who asks for
 * the version, and a call that lacks a variable is told so at once.
 */
function configOf(env: Environment, readConfig: () => string): string {
  try {
    const command = parseEnvironment(env)?.command;
    return command === undefined || command === 'VERSION' ? '' : readConfig();
  } catch {
    // The protocol finds and tells the same.
    return '';
  }
}

/** Calls `read` the first time only; a failure is tried again. */
function once(read: () => string): () => string {
  let text: string | undefined;
  return () => (text ??= read());
}

/** A configuration is a few kilobytes, the attachments of a GC may be many. */
const usualBytes = 16 * 1024;

// Nothing of Buffer: the first use costs 0.3 ms.
function readStdin(): string {
  let bytes = new Uint8Array(usualBytes);
  for (let end = 0; ;) {
    const room = bytes.subarray(end);
    const length = retryWhileBusy(() => readSync(0, room));
    // As a string of Buffer's: a byte order mark is part of it, and no JSON.
    if (length === 0)
      return new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes.subarray(0, end));
    end += length;
    if (end < bytes.byteLength) continue;
    const larger = new Uint8Array(2 * end);
    larger.set(bytes);
    bytes = larger;
  }
}

function writeAll(fd: number, text: string): void {
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length;) {
    at += retryWhileBusy(() => writeSync(fd, bytes, at));
  }
}

/** A runtime may give us a non-blocking pipe. */
function retryWhileBusy(call: () => number): number {
  for (;;) {
    try {
      return call();
    } catch (error) {
      if (!isErrno(error, 'EAGAIN')) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    }
  }
}

/** The thread is in a pod's namespace and cannot leave: nothing more may happen in this process. */
function die(error: Error): never {
  writeError(error);
  process.exit(1);
}

function writeError(error: unknown): void {
  writeAll(1, `${JSON.stringify(cniErrorDocument(error, newestCniVersion))}\n`);
}

if (import.meta.main) {
  // Nobody sees where an error comes from, and finding out takes Bun longer than all files of an ADD.
  Error.stackTraceLimit = 0;
  try {
    // All is written. A process that ends by itself first takes its heap apart: half a millisecond.
    process.exit(await main([process.argv0], process.env));
  } catch (error) {
    writeError(error);
    process.exit(1);
  }
}

/**
 * The CNI executable. One program for every plugin type: which one is the name it is called by, as
 * a runtime finds plugins by file name. This file owns the process; what a call means is
 * pkg/cni/protocol.ts, and what it does is in plugins/.
 */
import { readSync, writeSync } from 'node:fs';
import { basename } from 'node:path';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { cniErrorDocument, CniError, cniCode } from '#pkg/cni/cni-error.ts';
import type { ProgramOutcome, RunProgram } from '#pkg/cni/delegate.ts';
import type { Environment } from '#pkg/cni/environment.ts';
import type { CniPlugin } from '#pkg/cni/plugin.ts';
import { answerCni } from '#pkg/cni/protocol.ts';
import { newestCniVersion } from '#pkg/cni/versions.ts';
import { netnsIdentity } from '#pkg/netns/netns.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import type { CniSystem } from '#plugins/cni-system.ts';
import { hostLocalPlugin } from '#plugins/ipam/host-local.ts';
import { bridgePlugin } from '#plugins/main/bridge.ts';
import { loopbackPlugin } from '#plugins/main/loopback.ts';
import { podwirePlugin } from '#plugins/podwire.ts';

/**
 * Answers one call of a container runtime.
 *
 * @param argv the name the program is called by
 * @returns the exit code: 0, or 1 with an error document on standard output
 * @throws {AgentError} before there is a plugin to answer: an unknown name, a runtime without FFI
 */
export async function main(argv: readonly string[], env: Environment): Promise<0 | 1> {
  const name = basename(argv[0] ?? '');
  const plugin = pluginOf(name, await openSystem());
  if (plugin === undefined) throw unknownName(name);
  const { exitCode, stdout, stderr } = answerCni(plugin, {
    environment: env,
    readStdin,
    isOwnNetns,
  });
  writeAll(2, stderr);
  writeAll(1, stdout);
  return exitCode;
}

/** The plugin for a name; `podwire-cni` is how the build calls it. */
function pluginOf(name: string, system: CniSystem): CniPlugin | undefined {
  switch (name) {
    case 'podwire':
    case 'podwire-cni':
      return podwirePlugin(system);
    case 'bridge':
      return bridgePlugin(system);
    case 'loopback':
      return loopbackPlugin(system);
    case 'host-local':
      return hostLocalPlugin(system.sys);
    default:
      return undefined;
  }
}

async function openSystem(): Promise<CniSystem> {
  const sys = await openSys();
  return { sys, runProgram, delegates: new Map([['host-local', hostLocalPlugin(sys)]]), die };
}

function unknownName(name: string): CniError {
  return new CniError(
    cniCode.notAvailable,
    `Cannot act as plugin "${name}": expected to be called as podwire, bridge, host-local or loopback`,
  );
}

/** Loads child_process only here: few calls run another program, all would pay for it. */
const runProgram: RunProgram = (file, options): ProgramOutcome => {
  const { args = [], input, environment, captureStderr = false } = options;
  const { spawnSync } = process.getBuiltinModule('node:child_process');
  const { status, stdout, stderr, error } = spawnSync(file, args, {
    input,
    env: environment,
    stdio: ['pipe', 'pipe', captureStderr ? 'pipe' : 'inherit'],
    // iptables-save on a node with many Services prints tens of megabytes.
    maxBuffer: 256 * 1024 * 1024,
  });
  // EPIPE: the program did not read its input to the end. Its answer counts.
  if (error !== undefined && !isErrno(error, 'EPIPE')) throw error;
  return {
    exitCode: status ?? undefined,
    stdout: stdout.toString(),
    ...(captureStderr ? { stderr: stderr.toString() } : {}),
  };
};

function readStdin(): string {
  const chunks: Buffer[] = [];
  const chunk = Buffer.allocUnsafe(64 * 1024);
  for (;;) {
    const length = retryWhileBusy(() => readSync(0, chunk));
    if (length === 0) return Buffer.concat(chunks).toString();
    chunks.push(Buffer.from(chunk.subarray(0, length)));
  }
}

function writeAll(fd: number, text: string): void {
  const bytes = Buffer.from(text);
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

function isOwnNetns(path: string): boolean {
  try {
    return netnsIdentity(path) === netnsIdentity('/proc/thread-self/ns/net');
  } catch {
    // Nothing there, or nothing to look at: opening it will say what is wrong.
    return false;
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
  try {
    process.exitCode = await main([process.argv0], process.env);
  } catch (error) {
    writeError(error);
    process.exitCode = 1;
  }
}

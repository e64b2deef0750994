/**
 * Starts programs and measures them as a container runtime would see them: from before the fork to
 * the end, with the processor time of the program and of all it waited for. Node's own spawn costs
 * a millisecond around a program that takes two.
 */
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import type * as NodeFfi from 'node:ffi';

export interface Program {
  readonly file: string;
  readonly env: Readonly<Record<string, string>>;
  readonly stdin: string;
}

/** How one run went. */
export interface Run {
  readonly wallMs: number;
  readonly cpuMs: number;
  readonly exitCode: number;
  readonly stdout: string;
}

/** A program that runs; its standard output waits in a file without a name. */
interface Child {
  readonly startMs: number;
  readonly stdoutFd: number;
}

export interface Spawner {
  /** Runs one program to its end. */
  run(program: Program): Run;
  /** Runs them all, in order, `workers` at a time. */
  runAll(programs: readonly Program[], workers: number): readonly Run[];
}

export function openSpawner(): Spawner {
  const { dlopen, getRawPointer } = createRequire(import.meta.url)('node:ffi') as typeof NodeFfi;
  const { functions: libc } = dlopen(null, {
    posix_spawn: {
      arguments: ['buffer', 'buffer', 'buffer', 'pointer', 'buffer', 'buffer'],
      return: 'int32',
    },
    posix_spawn_file_actions_init: { arguments: ['buffer'], return: 'int32' },
    posix_spawn_file_actions_adddup2: {
      arguments: ['buffer', 'int32', 'int32'],
      return: 'int32',
    },
    posix_spawn_file_actions_destroy: { arguments: ['buffer'], return: 'int32' },
    wait4: { arguments: ['int32', 'buffer', 'int32', 'buffer'], return: 'int32' },
    memfd_create: { arguments: ['buffer', 'uint32'], return: 'int32' },
  });
  const children = new Map<number, Child>();

  /** A file without a name, closed on exec, that holds the text. */
  function memoryFile(text: string): number {
    const fd = libc.memfd_create(cString('podwire-bench'), 1);
    if (fd < 0) throw new Error('Cannot make a file in memory');
    if (text !== '') writeSync(fd, text);
    return fd;
  }

  function start({ file, env, stdin }: Program): number {
    // Through /proc: a second open file, which reads from the start.
    const memory = memoryFile(stdin);
    const stdinFd = openSync(`/proc/self/fd/${memory}`, 'r');
    closeSync(memory);
    const stdoutFd = memoryFile('');
    const actions = Buffer.alloc(256);
    libc.posix_spawn_file_actions_init(actions);
    libc.posix_spawn_file_actions_adddup2(actions, stdinFd, 0);
    libc.posix_spawn_file_actions_adddup2(actions, stdoutFd, 1);
    const path = cString(file);
    const argv = stringArray([file], getRawPointer);
    const envp = stringArray(
      Object.entries(env).map(([name, value]) => `${name}=${value}`),
      getRawPointer,
    );
    const pid = Buffer.alloc(4);
    const startMs = performance.now();
    const error = libc.posix_spawn(pid, path, actions, 0n, argv.bytes, envp.bytes);
    libc.posix_spawn_file_actions_destroy(actions);
    closeSync(stdinFd);
    if (error !== 0) throw new Error(`Cannot start ${file}: errno ${error}`);
    // The kernel has copied the strings; until here they had to live.
    if (argv.strings.length + envp.strings.length === 0) throw new Error('unreachable');
    children.set(pid.readInt32LE(), { startMs, stdoutFd });
    return pid.readInt32LE();
  }

  function waitAny(pid: number): [number, Run] {
    const status = Buffer.alloc(4);
    const usage = Buffer.alloc(144);
    const ended = libc.wait4(pid, status, 0, usage);
    const endMs = performance.now();
    const child = children.get(ended);
    if (child === undefined) throw new Error(`Cannot wait for a program: got ${ended}`);
    children.delete(ended);
    const stdout = readAll(child.stdoutFd);
    closeSync(child.stdoutFd);
    return [
      ended,
      {
        wallMs: endMs - child.startMs,
        cpuMs: timevalMs(usage, 0) + timevalMs(usage, 16),
        exitCode: status[0] === 0 ? (status[1] ?? -1) : -1,
        stdout,
      },
    ];
  }

  return {
    run: (program) => waitAny(start(program))[1],
    runAll(programs, workers) {
      const runs: Run[] = [];
      const indexes = new Map<number, number>();
      for (let next = 0; next < programs.length || indexes.size > 0;) {
        const program = programs[next];
        if (program !== undefined && indexes.size < workers) {
          indexes.set(start(program), next++);
          continue;
        }
        const [pid, run] = waitAny(-1);
        runs[indexes.get(pid) ?? -1] = run;
        indexes.delete(pid);
      }
      return runs;
    },
  };
}

function timevalMs(usage: Buffer, at: number): number {
  return Number(usage.readBigInt64LE(at)) * 1000 + Number(usage.readBigInt64LE(at + 8)) / 1000;
}

function cString(text: string): Buffer {
  return Buffer.from(`${text}\0`);
}

/** An array of pointers to strings, and the strings, which must live as long. */
function stringArray(
  texts: readonly string[],
  addressOf: (bytes: Buffer) => bigint,
): { readonly bytes: Buffer; readonly strings: readonly Buffer[] } {
  const strings = texts.map(cString);
  const bytes = Buffer.alloc((strings.length + 1) * 8);
  for (const [i, string] of strings.entries()) bytes.writeBigUInt64LE(addressOf(string), i * 8);
  return { bytes, strings };
}

function readAll(fd: number): string {
  const bytes = Buffer.alloc(256 * 1024);
  return bytes.toString('utf8', 0, readSync(fd, bytes, 0, bytes.length, 0));
}

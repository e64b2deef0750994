/**
 * Runs fuzz cases, in a sandbox that a test made: `fuzz-worker.ts <in-process|executable> <cases>
 * <seed> [directory of plugins]`. Prints one JSON report.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { ProgramOutcome } from '#pkg/cni/delegate.ts';
import { answerCni, type CniAnswer } from '#pkg/cni/protocol.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { delegatesOf, pluginOf } from '#plugins/registry.ts';
import { fuzzCase, type FuzzCase } from './fuzz-cases.ts';
import { fuzzDirectory } from './fuzz-config.ts';
import { problemOf } from './fuzz-verdict.ts';
import { createRandom, type Random } from './random.ts';

export interface FuzzReport {
  readonly cases: number;
  /** Calls that succeeded: a fuzzer whose every case is refused at once tests little. */
  readonly successes: number;
  readonly errorCodes: Readonly<Record<string, number>>;
  readonly slowestMs: number;
  readonly problems: readonly string[];
}

type Answer = Omit<CniAnswer, 'exitCode'> & { readonly exitCode: number | null };

const [mode = '', cases = '0', seed = '0', pluginDirectory = ''] = process.argv.slice(2);
const random = createRandom(Number(seed));
const answer = mode === 'executable' ? answerOfExecutable : answerInProcess;
process.stdout.write(JSON.stringify(await fuzz(Number(cases))));

async function fuzz(count: number): Promise<FuzzReport> {
  prepare();
  // When a case hangs, who ends us finds its number here.
  const progress = openSync(join(fuzzDirectory, 'progress'), 'w');
  const errorCodes: Record<string, number> = {};
  const problems: string[] = [];
  let [successes, slowestMs] = [0, 0];
  for (let i = 0; i < count; i++) {
    const one = fuzzCase(random);
    writeSync(progress, `${i}`.padEnd(10), 0);
    const startMs = performance.now();
    const given = await answer(one);
    slowestMs = Math.max(slowestMs, performance.now() - startMs);
    const problem = problemOf(one, given);
    if (problem !== undefined) problems.push(describe(i, one, problem));
    if (given.exitCode === 0) successes++;
    else {
      const code = /"code":(\d+)/.exec(given.stdout)?.[1] ?? 'none';
      errorCodes[code] = (errorCodes[code] ?? 0) + 1;
    }
  }
  return { cases: count, successes, errorCodes, slowestMs, problems };
}

function prepare(): void {
  for (const name of ['cwd', 'tmp']) mkdirSync(join(fuzzDirectory, name));
  const facts = { podCIDRs: ['10.9.0.0/24', 'fd00:9::/64'], mtuBytes: 1450, backend: 'vxlan' };
  writeFileSync(join(fuzzDirectory, 'node.json'), JSON.stringify(facts));
  writeFileSync(join(fuzzDirectory, 'garbage.json'), '{"podCIDRs": [null, "10.9.0.0/24"');
  writeFileSync(join(fuzzDirectory, 'resolv.conf'), 'nameserver 10.0.0.1\nsearch \n\0\n');
  process.chdir(join(fuzzDirectory, 'cwd'));
}

async function answerInProcess({ type, environment, stdin }: FuzzCase): Promise<Answer> {
  const text = stdin.toString();
  const sys = brokenSys(random);
  const system = {
    sys,
    runProgram: () => programOutcome(random),
    delegates: await delegatesOf(type, sys, text),
    die: (error: AgentError): never => {
      throw error;
    },
  };
  try {
    return answerCni(await pluginOf(type, system), {
      environment,
      readStdin: () => text,
      isOwnNetns: (path) => path.startsWith('/proc/'),
    });
  } catch (error) {
    return { exitCode: null, stdout: '', stderr: String(error) };
  }
}

/** A kernel that has no sockets to give; the rest works nearly always. */
function brokenSys(chance: Random): Sys {
  const fail = (): never => {
    const code = chance.pick(['EPERM', 'EMFILE', 'ENOBUFS', 'ENOMEM', 'EAFNOSUPPORT']);
    throw new AgentError(code, `Cannot call the kernel: ${code}`);
  };
  const seldom = (): void => {
    if (chance.chance(0.01)) fail();
  };
  return {
    socket: fail,
    bind: fail,
    connect: fail,
    getsockname: fail,
    setsockopt: fail,
    send: fail,
    recv: fail,
    poll: fail,
    setns: () => undefined,
    flock: seldom,
    close: () => undefined,
  };
}

/** What another plugin, nft or iptables might do. */
function programOutcome(chance: Random): ProgramOutcome {
  if (chance.chance(0.1)) throw new AgentError('ENOENT', 'Cannot run a program: there is none');
  const stdout = chance.pick([
    '',
    'null',
    '[]',
    '{}',
    'no JSON',
    '{"cniVersion":"1.0.0","ips":[{"address":"10.9.0.3/24"}]}',
    '{"cniVersion":"9.9.9"}',
    '{"ips":[{"address":7}]}',
    '{"code":11,"msg":"busy"}',
    '{"code":"x","msg":{}}',
    '*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j NOWHERE\nCOMMIT\n',
    'table inet t {',
    'b true\n',
    'b false\n',
  ]);
  return { exitCode: chance.pick([0, 0, 1, 2, undefined]), stdout, stderr: 'words' };
}

function answerOfExecutable({ type, environment, stdin }: FuzzCase): Promise<Answer> {
  const { status, stdout, stderr, error } = spawnSync(join(pluginDirectory, type), {
    input: stdin,
    env: {
      ...environment,
      PATH: process.env['PATH'],
      TMPDIR: join(fuzzDirectory, 'tmp'),
      // A firewalld of this machine must not hear of it.
      DBUS_SYSTEM_BUS_ADDRESS: 'unix:path=/nonexistent',
    },
    timeout: 20_000,
    killSignal: 'SIGKILL',
  });
  // EPIPE: it had no need of its input.
  const late = error !== undefined && 'code' in error && error.code === 'ETIMEDOUT';
  const words = late ? 'it hangs' : stderr.toString();
  return Promise.resolve({ exitCode: status, stdout: stdout.toString(), stderr: words });
}

function describe(number: number, { type, environment, stdin }: FuzzCase, problem: string): string {
  const input = JSON.stringify(stdin.toString().slice(0, 3_000));
  return `case ${number}, ${type}: ${problem.slice(0, 500)}\n${JSON.stringify(environment).slice(0, 600)}\n${input}`;
}

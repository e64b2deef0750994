/**
 * A plugin call that dies: `node scratch-crash.ts TYPE N` answers the call in its environment and on
 * its standard input, and kills itself with SIGKILL right before the N-th system call that changes
 * something. One that is not killed prints, after the result, how many there were. For tests only.
 */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import type { Sys } from '#pkg/sys/sys.ts';
import type { RunProgram } from '#pkg/cni/delegate.ts';

const [, , type = '', limit = '0'] = process.argv;
const stdin = fs.readFileSync(0, 'utf8');
let calls = 0;

/** One more call that changes something. */
function step(): void {
  calls += 1;
  if (calls === Number(limit)) process.kill(process.pid, 'SIGKILL');
}

/** Writing a file is three calls, between which it is there and empty. */
function writeInSteps(file: string, data: string, options?: object): void {
  const { flag = 'w', mode = 0o666 } = (options ?? {}) as { flag?: string; mode?: number };
  step();
  const fd = fs.openSync(file, flag, mode);
  try {
    step();
    fs.writeSync(fd, data);
  } finally {
    fs.closeSync(fd);
  }
}

const changing = ['mkdirSync', 'renameSync', 'unlinkSync', 'symlinkSync', 'rmSync'] as const;
for (const name of changing) {
  const original = fs[name] as (...args: unknown[]) => unknown;
  Object.assign(fs, {
    [name]: (...args: unknown[]) => {
      step();
      return original(...args);
    },
  });
}
Object.assign(fs, { writeFileSync: writeInSteps });
syncBuiltinESMExports();

/** Calls that the kernel does something for. */
function stepping(sys: Sys): Sys {
  return {
    ...sys,
    send: (...args) => (step(), sys.send(...args)),
    setns: (...args) => (step(), sys.setns(...args)),
    flock: (...args) => (step(), sys.flock(...args)),
  };
}

function steppingPrograms(run: RunProgram): RunProgram {
  return (...args) => {
    step();
    const outcome = run(...args);
    step();
    return outcome;
  };
}

// Not before the file system is one that counts.
const { openSys } = await import('#pkg/sys/open-sys.ts');
const { answerCni } = await import('#pkg/cni/protocol.ts');
const { isPluginName } = await import('#plugins/plugin-names.ts');
const { delegatesOf, pluginOf } = await import('#plugins/registry.ts');
const { programRunner } = await import('./run-program.ts');
if (!isPluginName(type)) throw new Error(`There is no plugin ${type}`);
const sys = stepping(await openSys());
const delegates = await delegatesOf(type, sys, stdin);
const die = (error: Error): never => {
  throw error;
};
const system = { sys, runProgram: steppingPrograms(programRunner()), delegates, die };
const { exitCode, stdout } = answerCni(await pluginOf(type, system), {
  environment: process.env,
  readStdin: () => stdin,
  isOwnNetns: () => false,
});
process.stdout.write(`${stdout}${calls}\n`);
process.exitCode = exitCode;

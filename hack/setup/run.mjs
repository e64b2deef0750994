/** Child processes of the set-up: quiet steps, and the task that owns the terminal. */
import { spawn, spawnSync } from 'node:child_process';
import { constants } from 'node:os';

/** The machine cannot do what was asked: one line for people, exit code 2. */
export class Refusal extends Error {}

/**
 * Runs a set-up step to its end. What it prints is shown only as the last line of the refusal, so
 * that success is quiet and failure is one line.
 *
 * @throws {Refusal} "cannot <purpose>: <why>"
 */
export function runStep(purpose, [file, ...args], options) {
  const { status, signal, error, stdout, stderr } = spawnSync(file, args, {
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
    stdio: ['ignore', 'pipe', 'pipe'],
    ...options,
  });
  if (error !== undefined) throw new Refusal(`cannot ${purpose}: ${file}: ${error.message}`);
  if (status === 0) return stdout;
  const ended = status === null ? `was ended by ${signal}` : `exited with ${status}`;
  throw new Refusal(`cannot ${purpose}: ${file} ${ended}: ${reason(stderr) || reason(stdout)}`);
}

/** The line that says what went wrong: apt's "E: …", npm's "npm error …", esbuild's, else the last. */
function reason(output) {
  const lines = output.split('\n').map((line) => line.trim());
  const telling = /^(?:E: |npm (?:error|ERR!) (?!code |A complete log)\S|.*\[ERROR\] |\w*Error: )/;
  return lines.find((line) => telling.test(line)) ?? lines.findLast((line) => line !== '') ?? '';
}

/** Runs the task on this terminal and resolves to its exit code (128 + n when ended by signal n). */
export function runTask(file, args, options) {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { stdio: 'inherit', ...options });
    const stop = passSignals(child);
    child.once('error', (error) => {
      stop();
      reject(new Refusal(`cannot run ${file}: ${error.message}`));
    });
    child.once('exit', (code, signal) => {
      stop();
      resolve(code ?? 128 + constants.signals[signal]);
    });
  });
}

function passSignals(child) {
  const listeners = ['SIGINT', 'SIGTERM', 'SIGHUP'].map((signal) => {
    // A terminal sends Ctrl-C to the whole foreground group: the child has it already.
    const pass = () => (signal === 'SIGINT' && process.stdin.isTTY) || child.kill(signal);
    process.on(signal, pass);
    return [signal, pass];
  });
  return () => listeners.forEach(([signal, pass]) => process.off(signal, pass));
}

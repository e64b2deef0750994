#!/usr/bin/env -S node --disable-warning=ExperimentalWarning
/**
 * The service proxy's daemon. This file owns the process: arguments, signals, exit code. What
 * runs, and of which parts, is `wire.ts`.
 */
import { hostname } from 'node:os';
import { basename } from 'node:path';
import type { ProxyMode } from '#pkg/config/proxy-config.ts';
import { AgentError, messageOf } from '#pkg/errors/agent-error.ts';
import { exitCodeFor } from '#cmd/exit-code.ts';
import { version } from '#cmd/version.ts';
import { createLogger, type Logger } from '#pkg/log/logger.ts';
import { readOptions, type ProxyOptions } from './options.ts';
import { runProxy } from './wire.ts';

const runnable: readonly ProxyMode[] = ['iptables'];

/** 0 = stopped on request or done, 1 = failed, 2 = wrong usage or configuration. */
export async function main(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  program: string,
): Promise<0 | 1 | 2> {
  const surroundings = { env, hostname: hostname(), version, program };
  let options: ProxyOptions;
  try {
    const read = await readOptions(argv, surroundings);
    if ('kind' in read) {
      process.stdout.write(read.text);
      return 0;
    }
    options = read;
  } catch (err) {
    createLogger(program).error({ reason: messageOf(err) }, 'Cannot start');
    return 2;
  }
  const log = createLogger(program, options.config.verbosity >= 2 ? 'debug' : 'info');
  for (const warning of options.warnings) log.warn({ warning }, 'Configuration');
  return await run(options, env, log);
}

async function run(
  options: ProxyOptions,
  env: Readonly<Record<string, string | undefined>>,
  log: Logger,
): Promise<0 | 1 | 2> {
  const stop = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.once(signal, () => {
      log.info({ signal }, 'Stopping; rules stay in the kernel');
      stop.abort();
    });
  }
  try {
    requireMode(options.config.mode);
    log.info({ node: options.nodeName, mode: options.config.mode, version }, 'Starting');
    await runProxy(options, { env, version, log }, stop.signal);
    return 0;
  } catch (err) {
    if (stop.signal.aborted) return 0;
    log.error({ reason: messageOf(err), err }, 'Failed');
    return exitCodeFor(err);
  } finally {
    // A failure leaves servers and watches behind; they end with this.
    stop.abort();
  }
}

/** Only what runs needs its mode: a configuration of another can still be written or cleaned up. */
function requireMode(mode: ProxyMode): void {
  if (runnable.includes(mode)) return;
  throw new AgentError(
    'InvalidConfig',
    `Cannot run in mode ${mode}: this version has mode ${runnable.join(', ')} only`,
  );
}

/** An image that is made to stand in for kube-proxy has this program under that name. */
function programName(path: string | undefined): string {
  return basename(path ?? '') === 'kube-proxy' ? 'kube-proxy' : 'podwire-proxy';
}

if (import.meta.main) {
  process.exitCode = await main(process.argv.slice(2), process.env, programName(process.argv[1]));
}

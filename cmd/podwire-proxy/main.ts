#!/usr/bin/env -S node --disable-warning=ExperimentalWarning
/**
 * The service proxy's daemon. This file owns the process: arguments, signals, exit code. What
 * runs, and of which parts, is `wire.ts`.
 */
import { hostname } from 'node:os';
import { messageOf } from '#pkg/errors/agent-error.ts';
import { exitCodeFor } from '#cmd/exit-code.ts';
import { version } from '#cmd/version.ts';
import { createLogger, type Logger } from '#pkg/log/logger.ts';
import { readOptions, type ProxyOptions } from './options.ts';
import { runProxy } from './wire.ts';

const name = 'podwire-proxy';

/** 0 = stopped on request, 1 = failed, 2 = wrong usage or configuration. */
export async function main(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Promise<0 | 1 | 2> {
  let options: ProxyOptions;
  try {
    const read = await readOptions(argv, { env, hostname: hostname(), version });
    if ('kind' in read) return 0;
    options = read;
  } catch (err) {
    createLogger(name).error({ reason: messageOf(err) }, 'Cannot start');
    return 2;
  }
  const log = createLogger(name, options.config.verbosity >= 2 ? 'debug' : 'info');
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

if (import.meta.main) process.exitCode = await main(process.argv.slice(2), process.env);

#!/usr/bin/env -S node --disable-warning=ExperimentalWarning --max-semi-space-size=4
/**
 * The service proxy's daemon. This file owns the process: arguments, signals, exit code. What
 * runs, and of which parts, is `wire.ts`.
 *
 * The young generation is kept small: to collect one of the default size while 20,000 Services are
 * taken in stops everything, /healthz included, for up to a tenth of a second; one of 4 MB for a
 * fifth of that, and loading takes as long.
 */
import { writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename } from 'node:path';
import { systemClock } from '#pkg/clock/clock.ts';
import { renderProxyConfig } from '#pkg/config/proxy-config-render.ts';
import { exitCodeFor, failureFields } from '#cmd/exit-code.ts';
import { onlyOne } from '#cmd/only-one.ts';
import { version } from '#cmd/version.ts';
import { createLogger, type LogLevel } from '#pkg/log/logger.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { cleanUp } from './cleanup.ts';
import { loadConntrack } from './conntrack-module.ts';
import { initializeHost } from './host-settings.ts';
import { proxyHost } from './host.ts';
import { readOptions, type ProxyOptions } from './options.ts';
import { reread } from './reconfigure.ts';
import { runProxy, type ProxyContext } from './wire.ts';

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
    createLogger(program).error(failureFields(err), 'Cannot start');
    return 2;
  }
  const log = createLogger(program, levelOf(options.config.verbosity));
  for (const warning of options.warnings) log.warn({ warning }, 'Configuration');
  const readAgain = async (): Promise<ProxyOptions> => {
    const again = await readOptions(argv, surroundings);
    if ('kind' in again) throw new Error('the command line has changed');
    return again;
  };
  const setVerbosity = (level: number): void => void (log.level = levelOf(level));
  return await perform(options, { env, version, program, log, setVerbosity, reread: readAgain });
}

/** Only two of kube-proxy's levels differ here. */
function levelOf(verbosity: number): LogLevel {
  return verbosity >= 2 ? 'debug' : 'info';
}

async function perform(options: ProxyOptions, context: ProxyContext): Promise<0 | 1 | 2> {
  const { action, config, nodeName } = options;
  const { log } = context;
  const stop = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    // Not once(): execa, while a program of ours runs, ends this process by the same signal unless
    // somebody else still listens to it.
    process.on(signal, () => {
      log.info({ signal }, 'Stopping; rules stay in the kernel');
      stop.abort();
    });
  }
  try {
    switch (action.kind) {
      case 'write-config':
        await writeFile(action.path, renderProxyConfig(options.file));
        log.info({ path: action.path }, 'Configuration written');
        return 0;
      case 'cleanup':
        await cleanUp({ log, excludeCIDRs: config.ipvs.excludeCIDRs }, stop.signal);
        return 0;
      case 'init-only':
        await loadConntrack(log);
        await initializeHost(config, { host: proxyHost, log }, stop.signal);
        return 0;
      case 'run': {
        log.info({ node: nodeName, mode: config.mode, version }, 'Starting');
        const lock = { log, sys: await openSys(), clock: systemClock };
        // Whatever name it is called by.
        using held = await onlyOne('podwire-proxy', lock, stop.signal);
        await runProxy(
          held.hasWaited ? await renew(options, context) : options,
          context,
          stop.signal,
        );
        return 0;
      }
    }
  } catch (err) {
    if (stop.signal.aborted && action.kind === 'run') return 0;
    log.error(failureFields(err), 'Failed');
    return exitCodeFor(err);
  } finally {
    // A failure leaves servers and watches behind; they end with this.
    stop.abort();
  }
}

/** What the other proxy's end may have been for is a new configuration. */
async function renew(options: ProxyOptions, context: ProxyContext): Promise<ProxyOptions> {
  const next = (await reread(options, context)) ?? options;
  context.setVerbosity(next.config.verbosity);
  return next;
}

/** An image that is made to stand in for kube-proxy has this program under that name. */
function programName(path: string | undefined): string {
  return basename(path ?? '') === 'kube-proxy' ? 'kube-proxy' : 'podwire-proxy';
}

if (import.meta.main) {
  process.exitCode = await main(process.argv.slice(2), process.env, programName(process.argv[1]));
}

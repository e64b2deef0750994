#!/usr/bin/env -S node --disable-warning=ExperimentalWarning
/**
 * The pod network's daemon. This file owns the process: arguments, signals, exit code. What runs,
 * and of which parts, is `wire.ts`.
 */
import { exitCodeFor, failureFields } from '#cmd/exit-code.ts';
import { version } from '#cmd/version.ts';
import { createLogger, type Logger } from '#pkg/log/logger.ts';
import { readOptions, type NodeOptions } from './options.ts';
import { startNode } from './wire.ts';

/** 0 = stopped on request, 1 = failed, 2 = wrong usage or configuration. */
export async function main(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Promise<0 | 1 | 2> {
  let options: NodeOptions;
  try {
    const read = await readOptions(argv, env, version);
    if ('kind' in read) return 0;
    options = read;
  } catch (err) {
    createLogger('podwire-node').error(failureFields(err), 'Cannot start');
    return 2;
  }
  const log = createLogger('podwire-node', options.config.logLevel);
  for (const notice of options.notices) log.warn({}, notice);
  return await run(options, env, log);
}

async function run(
  options: NodeOptions,
  env: Readonly<Record<string, string | undefined>>,
  log: Logger,
): Promise<0 | 1 | 2> {
  const stop = new AbortController();
  for (const name of ['SIGTERM', 'SIGINT'] as const) {
    // Not once(): execa, while a program of ours runs, ends this process by the same signal unless
    // somebody else still listens to it.
    process.on(name, () => {
      if (!stop.signal.aborted) log.info({ signal: name }, 'Stopping; what is in the kernel stays');
      stop.abort();
    });
  }
  try {
    await using node = await startNode(options, { env, version, log }, stop.signal);
    log.info({ node: options.nodeName, backend: options.config.backend, version }, 'Started');
    await node.run();
    return 0;
  } catch (err) {
    if (stop.signal.aborted) return 0;
    log.error(failureFields(err), 'Failed');
    return exitCodeFor(err);
  }
}

if (import.meta.main) process.exitCode = await main(process.argv.slice(2), process.env);

#!/usr/bin/env -S node --disable-warning=ExperimentalWarning
/**
 * `podwire`: the command for people. This file owns the process: arguments, signals, exit code.
 * Commands load when they are asked for: some start many times a second, others are large.
 */
import { hostname } from 'node:os';
import { join } from 'node:path';
import { pluginSource } from '#cmd/plugin-source.ts';
import { version } from '#cmd/version.ts';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { systemClock } from '#pkg/clock/clock.ts';
import { messageOf, type AgentError } from '#pkg/errors/agent-error.ts';
import { createLogger } from '#pkg/log/logger.ts';
import type { Programs } from './demo/layout.ts';
import type { RunFolder } from './demo/run-folder.ts';
import type { StatusOptions } from './status.ts';

/** As source this file is in cmd/podwire, as bundle in dist/. */
const root = join(import.meta.dirname, import.meta.filename.endsWith('.ts') ? '../..' : '..');
const programs: Programs = { node: process.execPath, dist: join(root, 'dist') };

type ExitCode = 0 | 1 | 2;

/** 0 = done, or stopped on request; 1 = failed; 2 = wrong usage, or cannot run here. */
export async function main(argv: readonly string[]): Promise<ExitCode> {
  let exitCode: ExitCode = 0;
  const run = (task: () => Promise<ExitCode>): Promise<void> =>
    task().then((code) => {
      exitCode = code;
    });
  const command = new Command('podwire').version(version).exitOverride();
  command.description('Podwire, a network agent for Kubernetes nodes');
  addInstall(command, run);
  addDemo(command, run);
  addDiff(command, run);
  addStatus(command, run);
  addDemoProcesses(command, run);
  try {
    await command.parseAsync(argv, { from: 'user' });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    throw error;
  }
}

function addInstall(command: Command, run: (task: () => Promise<ExitCode>) => Promise<void>): void {
  const binDir = ['--bin-dir <directory>', 'where the container runtime looks for them'] as const;
  const defaultBinDir = '/opt/cni/bin';
  command
    .command('install')
    .description('put the CNI plugins in place, or newer ones; safe while a runtime calls them')
    .option(...binDir, defaultBinDir)
    .option('--replace-reference-plugins', 'also in place of others of these names', false)
    .action((options: { binDir: string; replaceReferencePlugins: boolean }) =>
      run(async () => {
        const { runInstall } = await import('./install.ts');
        return await runInstall({ ...options, source: pluginSource(), say });
      }),
    );
  command
    .command('uninstall')
    .description('remove the CNI plugins, and put back those they replaced')
    .option(...binDir, defaultBinDir)
    .action((options: { binDir: string }) =>
      run(async () => {
        const { runUninstall } = await import('./install.ts');
        return await runUninstall({ ...options, source: pluginSource(), say });
      }),
    );
}

function addDemo(command: Command, run: (task: () => Promise<ExitCode>) => Promise<void>): void {
  command
    .command('demo')
    .description('build a cluster of three nodes on this machine and show that it works')
    .option('--keep', 'leave it running, with a kubeconfig for kubectl', false)
    .option('--down', 'remove what --keep left running', false)
    .action((options: { keep: boolean; down: boolean }) => run(() => demo(options)));
}

function addDiff(command: Command, run: (task: () => Promise<ExitCode>) => Promise<void>): void {
  command
    .command('diff')
    .description('print what podwire-proxy would change in the kernel now; exit 1 when anything')
    .usage('[options of podwire-proxy]')
    .argument('[options...]', 'as podwire-proxy is started on this node: --config and so on')
    .allowUnknownOption()
    .action((options: string[]) => run(() => diff(options)));
}

function addStatus(command: Command, run: (task: () => Promise<ExitCode>) => Promise<void>): void {
  command
    .command('status')
    .description('tell what podwire-proxy on this node does; exit 1 when rules are not in sync')
    .option('--server <url>', 'its metricsBindAddress', 'http://127.0.0.1:10249')
    .option('--services [namespace[/name]]', 'tell of Services, with what was counted')
    .option('--endpoints', 'and of their endpoints', false)
    .option('--limit <number>', 'how many Service ports at most', count, 500)
    .addOption(new Option('--output <format>').choices(['text', 'json']).default('text'))
    .action((options: StatusOptions) =>
      run(async () => {
        const { runStatus } = await import('./status.ts');
        try {
          return await runStatus(options, (text) => void process.stdout.write(text), stopSignal());
        } catch (error) {
          say(`podwire status: ${messageOf(error)}`);
          return 2;
        }
      }),
    );
}

/** As diff(1): 0 = nothing would change, 1 = something would, 2 = trouble. */
async function diff(argv: readonly string[]): Promise<ExitCode> {
  const { readOptions } = await import('#cmd/podwire-proxy/options.ts');
  const { runDiff } = await import('./diff.ts');
  const warn = (sentence: string): void => say(`podwire diff: ${sentence}`);
  const env = process.env;
  try {
    const program = 'podwire diff';
    const options = await readOptions(argv, { env, hostname: hostname(), version, program });
    if ('kind' in options) {
      process.stdout.write(options.text);
      return 0;
    }
    if (options.action.kind !== 'run') {
      warn(`--${options.action.kind} is for podwire-proxy itself`);
      return 2;
    }
    options.warnings.forEach(warn);
    const log = createLogger('podwire-diff', 'warn');
    const print = (text: string): void => void process.stdout.write(text);
    const context = { env, version, clock: systemClock, log, print, warn };
    return await runDiff(options, context, stopSignal());
  } catch (error) {
    warn(messageOf(error));
    return 2;
  }
}

async function demo({ keep, down }: { keep: boolean; down: boolean }): Promise<ExitCode> {
  const { missingForDemo } = await import('./demo/preflight.ts');
  const missing = missingForDemo(process.getuid?.() ?? -1, process.env['PATH'] ?? '');
  if (missing !== undefined) {
    say(`podwire demo: ${missing}`);
    return 2;
  }
  try {
    if (down) return await demoDown();
    const { runDemo } = await import('./demo/demo.ts');
    const options = { programs, manifests: join(root, 'deploy/demo'), clock: systemClock };
    const output = { say, print: (text: string) => void process.stdout.write(`${text}\n`) };
    return await runDemo({ ...options, ...output, keep, ownerPid: process.pid }, stopSignal());
  } catch (error) {
    say(`podwire demo: ${messageOf(error)}`);
    return 1;
  }
}

async function demoDown(): Promise<ExitCode> {
  const { removeRuns } = await import('./demo/remove.ts');
  const removed = await removeRuns(['kept', 'abandoned']);
  say(
    removed.length === 0 ? 'no demo is running' : `removed ${removed.map((r) => r.id).join(', ')}`,
  );
  return 0;
}

/** The demo's own processes: started by it, of no use to people. */
function addDemoProcesses(
  command: Command,
  run: (task: () => Promise<ExitCode>) => Promise<void>,
): void {
  const hidden = { hidden: true };
  command
    .command('demo-api', hidden)
    .requiredOption('--run <id>')
    .action((options: { run: string }) =>
      run(async () => {
        const { runApi } = await import('./demo/api-process.ts');
        const log = createLogger('demo-api');
        await runApi({ run: await runFolder(options.run), log, die }, stopSignal());
        return 0;
      }),
    );
  command
    .command('demo-kubelet', hidden)
    .requiredOption('--run <id>')
    .action((options: { run: string }) =>
      run(async () => {
        const { runKubeletProcess } = await import('./demo/kubelet-process.ts');
        const log = createLogger('demo-kubelet');
        await runKubeletProcess({ run: await runFolder(options.run), programs, log }, stopSignal());
        return 0;
      }),
    );
  command
    .command('demo-agent', hidden)
    .requiredOption('--name <name>')
    .requiredOption('--control <socket>')
    .option('--port <number>', 'TCP and UDP port to answer on', portNumber)
    .action((options: { name: string; control: string; port?: number }) =>
      run(async () => {
        const { runAgent } = await import('./demo/agent.ts');
        await runAgent({ ...options, port: options.port }, stopSignal());
        return 0;
      }),
    );
}

async function runFolder(id: string): Promise<RunFolder> {
  const { runsFolder } = await import('./demo/run-folder.ts');
  return { id, path: join(runsFolder, id) };
}

function portNumber(text: string): number {
  const port = Number(text);
  if (Number.isInteger(port) && port > 0 && port < 65536) return port;
  throw new InvalidArgumentError('expected a port number');
}

function count(text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('expected a number');
}

/** Aborts when the process is asked to stop, or when nobody reads what it prints any more. */
function stopSignal(): AbortSignal {
  const stop = new AbortController();
  // Asked again (npm and a terminal both pass Ctrl-C on), it goes on cleaning up.
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => stop.abort());
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => stop.abort());
  return stop.signal;
}

function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

function die(error: AgentError): never {
  say(messageOf(error));
  process.exit(1);
}

if (import.meta.main) process.exitCode = await main(process.argv.slice(2));

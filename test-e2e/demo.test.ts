import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { listNamespaces } from '#cmd/podwire/demo/namespaces.ts';
import { removeRun } from '#cmd/podwire/demo/remove.ts';
import { findRuns } from '#cmd/podwire/demo/run-folder.ts';
import { runCommand } from '#pkg/exec/run.ts';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { eventually, programs } from '#test/test-cluster.ts';

/** What a run leaves on the machine, if anything. Others may run demos of their own. */
interface Traces {
  readonly namespaces: readonly string[];
  readonly processes: readonly string[];
  readonly runs: readonly string[];
}

let before: Traces;
let started: Demo[] = [];

beforeEach(() => {
  before = traces();
  started = [];
});

afterEach(async () => {
  for (const { child } of started) {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGTERM');
      await once(child, 'exit');
    }
  }
  // What a failed test left: only runs that it started itself.
  for (const run of findRuns()) {
    if (run.status !== 'running' && !before.runs.includes(run.id)) await removeRun(run);
  }
});

describe('podwire demo', () => {
  it('leaves nothing behind when it is stopped with Ctrl-C, pressed twice', async () => {
    const demo = startDemo();
    await demo.says('podwire-node and podwire-proxy');
    demo.child.kill('SIGINT');
    demo.child.kill('SIGINT');
    expect(await demo.exitCode).toBe(1);
    expect(demo.stderr()).toContain('stopped; everything it made is removed');
    expect(traces()).toEqual(before);
  });

  it('leaves nothing behind when nobody reads its output any more', async () => {
    const demo = startDemo();
    await demo.says('API server');
    demo.child.stderr?.destroy();
    demo.child.stdout?.destroy();
    expect(await demo.exitCode).toBe(1);
    expect(traces()).toEqual(before);
  });

  it('shows the last words of a daemon that dies, fails, and leaves nothing behind', async () => {
    const demo = startDemo();
    await demo.says('pods are running');
    const [pid] = traces().processes.filter((p) => /podwire-node .*--node-name node2/.test(p));
    process.kill(Number(pid?.split(' ')[0]), 'SIGKILL');
    expect(await demo.exitCode).toBe(1);
    expect(demo.stderr()).toContain('node2-podwire-node ended: SIGKILL');
    expect(demo.stderr()).toContain('  node2-podwire-node: {');
    expect(traces()).toEqual(before);
  });

  it('works after a run that was killed half-way, removes what that left, and leaves nothing', async () => {
    const killed = startDemo();
    await killed.says('pods are running');
    killed.child.kill('SIGKILL');
    await killed.exitCode;
    expect(traces().namespaces.length).toBeGreaterThan(before.namespaces.length);

    const demo = startDemo();
    expect(await demo.exitCode).toBe(0);
    expect(demo.stderr()).toMatch(/removed what was left of run [0-9a-f]{6}/);
    expect(demo.stdout()).toMatch(/^pod → pod across the router +ok +ok +- +- +ok +ok/m);
    expect(demo.stdout()).not.toContain('FAILED');
    expect(traces()).toEqual(before);
  });

  it('refuses in one line, with exit code 2, without root', async () => {
    const demo = startDemo(
      ['demo'],
      ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'],
    );
    expect(await demo.exitCode).toBe(2);
    expect(demo.stderr()).toBe(
      'podwire demo: cannot run as user 65534: needs root for network namespaces\n',
    );
    expect(traces()).toEqual(before);
  });
});

describe('podwire demo --keep', () => {
  let kubeconfig = '';
  let untouched: Traces;

  beforeAll(async () => {
    untouched = traces();
    const demo = startDemo(['demo', '--keep']);
    expect(await demo.exitCode).toBe(0);
    kubeconfig = /export KUBECONFIG=(\S+)/.exec(demo.stdout())?.[1] ?? '';
  });
  afterAll(async () => {
    const down = startDemo(['demo', '--down']);
    expect(await down.exitCode).toBe(0);
    expect(traces()).toEqual(untouched);
  });

  it('prints a kubeconfig that only its owner can read', () => {
    expect(statSync(kubeconfig).mode & 0o777).toBe(0o600);
  });

  it('refuses to start a second one, and says how to end the first', async () => {
    const demo = startDemo(['demo', '--keep']);
    expect(await demo.exitCode).toBe(2);
    expect(demo.stderr()).toContain('npm run demo -- --down');
  });

  it('lets kubectl start a pod, which becomes an endpoint, and delete it', async (context) => {
    if (!(await hasKubectl()))
      context.skip('needs kubectl, which Debian has too old or not at all');
    await kubectl('run', 'another', '--image=any', '--labels=app=echo');
    await kubectl('wait', '--for=condition=Ready', 'pod/another', '--timeout=60s');
    const ip = await kubectl('get', 'pod', 'another', '-o', 'jsonpath={.status.podIP}');
    const endpoints = (): Promise<string> =>
      kubectl('get', 'endpointslices', '-l', 'kubernetes.io/service-name=echo', '-o', 'yaml');
    await eventually('the new endpoint', async () => (await endpoints()).includes(`- ${ip}\n`));
    await kubectl('delete', 'pod', 'another', '--timeout=60s');
    await eventually('its end', async () => !(await endpoints()).includes(`- ${ip}\n`));
  });

  async function kubectl(...args: string[]): Promise<string> {
    const { stdout } = await runCommand('kubectl', ['--kubeconfig', kubeconfig, ...args], {
      timeoutMs: 120_000,
    });
    return `${stdout}\n`.replace(/^(\S+)\n$/, '$1');
  }
});

interface Demo {
  readonly child: ChildProcess;
  readonly exitCode: Promise<number | null>;
  stdout(): string;
  stderr(): string;
  /** Resolves when it has said this, as progress. */
  says(text: string): Promise<void>;
}

function startDemo(args = ['demo'], prefix: readonly string[] = []): Demo {
  const [file = '', ...rest] = [
    ...prefix,
    programs.node,
    '--disable-warning=ExperimentalWarning',
    join(programs.dist, 'podwire'),
    ...args,
  ];
  const child = spawn(file, rest, { stdio: ['ignore', 'pipe', 'pipe'] });
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => (output[name] += text));
  }
  const exitCode = once(child, 'close').then(() => child.exitCode);
  const demo: Demo = {
    child,
    exitCode,
    stdout: () => output.stdout,
    stderr: () => output.stderr,
    says: (text) => eventually(`"${text}" from the demo`, () => output.stderr.includes(text)),
  };
  started.push(demo);
  return demo;
}

async function hasKubectl(): Promise<boolean> {
  return await runCommand('kubectl', ['version', '--client'], { timeoutMs: 60_000 }).then(
    () => true,
    () => false,
  );
}

function traces(): Traces {
  return {
    namespaces: listNamespaces('podwire-demo-').toSorted(),
    processes: demoProcesses(),
    runs: findRuns()
      .map((run) => run.id)
      .toSorted(),
  };
}

/** "pid command" of everything that runs for a demo. */
function demoProcesses(): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => readProc(pid, 'environ').includes('PODWIRE_DEMO_RUN='))
    .map((pid) => `${pid} ${readProc(pid, 'cmdline').replaceAll('\0', ' ')}`);
}

function readProc(pid: string, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch (error) {
    // It has just ended, or belongs to somebody whom not even root may look at.
    if (['ENOENT', 'ESRCH', 'EACCES'].some((code) => isErrno(error, code))) return '';
    throw error;
  }
}

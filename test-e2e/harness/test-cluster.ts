/** A cluster of the demo as tests use it: the demo's pods and Services, probes, kernels to look at. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { createCluster, type Cluster } from '#cmd/podwire/demo/cluster.ts';
import { readFacts, waitForPods } from '#cmd/podwire/demo/facts.ts';
import type { Programs } from '#cmd/podwire/demo/layout.ts';
import { applyManifests } from '#cmd/podwire/demo/manifests.ts';
import type { BackendChoice } from '#cmd/podwire/demo/node-programs.ts';
import { probeList, type ClusterFacts } from '#cmd/podwire/demo/probe-list.ts';
import { sendProbes } from '#cmd/podwire/demo/prober.ts';
import { waitFor } from '#cmd/podwire/demo/wait.ts';
import { systemClock } from '#pkg/clock/clock.ts';
import { silentLogger } from '#pkg/log/logger.ts';

const root = join(import.meta.dirname, '../..');
export const manifests = join(root, 'deploy/demo');

/** The built programs; PODWIRE_DIST names another build than `dist/`. */
export const programs: Programs = {
  node: join(root, 'node_modules/node/bin/node'),
  dist: process.env['PODWIRE_DIST'] ?? join(root, 'dist'),
};

export interface TestCluster extends AsyncDisposable {
  readonly cluster: Cluster;
  /** Addresses as they were at the start. */
  readonly facts: ClusterFacts;
  /** What does not hold, of the probes of these rows (all when empty), within a minute. */
  problems(...rows: string[]): Promise<string[]>;
}

const forever = new AbortController().signal;

/** Starts a cluster whose pods run. */
export async function startTestCluster(backend: BackendChoice): Promise<TestCluster> {
  for (const name of ['podwire', 'podwire-cni', 'podwire-node', 'podwire-proxy']) {
    if (existsSync(join(programs.dist, name))) continue;
    throw new Error(`Cannot test ${name}: not built; run npm run build, or npm test`);
  }
  const options = { programs, clock: systemClock, log: silentLogger, backend };
  const cluster = await createCluster(
    { ...options, onStage: () => undefined, ownerPid: process.pid },
    forever,
  );
  try {
    for (const file of ['nodes.yaml', 'pods.yaml', 'services.yaml']) {
      await applyManifests(cluster.client, join(manifests, file), forever);
    }
    await waitForPods(cluster.client, forever);
    return testCluster(cluster, await readFacts(cluster, forever));
  } catch (error) {
    await cluster[Symbol.asyncDispose]();
    throw error;
  }
}

function testCluster(cluster: Cluster, facts: ClusterFacts): TestCluster {
  return {
    cluster,
    facts,
    problems: async (...rows) => {
      const now = await readFacts(cluster, forever);
      const probes = probeList(now, true).filter((p) => rows.length === 0 || rows.includes(p.row));
      const options = { run: cluster.run, clock: systemClock, patienceMs: 60_000 };
      const results = await sendProbes(options, probes, forever);
      return results.flatMap(({ problem }) => (problem === undefined ? [] : [problem]));
    },
    [Symbol.asyncDispose]: async () => {
      await cluster[Symbol.asyncDispose]();
    },
  };
}

/** Waits, up to a minute, which many daemons that start at once may need, until `look` returns true. */
export async function eventually(
  what: string,
  look: () => boolean | Promise<boolean>,
): Promise<void> {
  const wait = { clock: systemClock, withinMs: 60_000 };
  await waitFor(what, wait, async () => (await look()) || undefined);
}

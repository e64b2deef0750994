/** A machine and a cluster in memory, for rounds of the daemon that nothing real has to be there for. */
import type { HostObject } from '#pkg/host-network/object.ts';
import { planHostNetwork } from '#pkg/host-network/plan.ts';
import { StepError, type Step } from '#pkg/host-network/step.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { planNftables, type ElementStep, type NftStep } from '#pkg/nftables/plan.ts';
import { observedOf, sameTable, type ObservedTable } from '#pkg/nftables/ruleset.ts';
import { nodeRecord, vxlanOptions } from '#pkg/pod-network/testdata/vxlan-node.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import { desiredPodNetwork, type Desired, type HostFacts } from '#pkg/pod-network/desired.ts';
import { createNodeMetrics } from '#cmd/podwire-node/node-metrics.ts';
import type { RoundParts } from '#cmd/podwire-node/round-parts.ts';
import { PodNetworkRound } from '#cmd/podwire-node/round.ts';
import { NodeStatus } from '#cmd/podwire-node/status.ts';
import { drainOf } from './round-records.ts';

const hostFacts: HostFacts = {
  links: [
    {
      name: 'eth0',
      mtuBytes: 1500,
      addresses: [parsePrefix('192.168.1.1/24')],
      onLinkPrefixes: [parsePrefix('192.168.1.0/24')],
    },
  ],
  advertisedLinks: [],
  acceptRa: () => undefined,
};
const options = vxlanOptions('a');

export function node(name: string, n: number): NodeRecord {
  return nodeRecord(name, {
    annotations: {
      'podwire.dev/backend-type': 'vxlan',
      'podwire.dev/backend-data': `{"VNI":1,"VtepMAC":"02:00:00:00:00:0${n}"}`,
      'podwire.dev/public-ip': `192.168.${n}.1`,
    },
    podCIDRs: [`10.244.${n}.0/24`],
    internalIPs: [`192.168.${n}.1`],
  });
}

/** A machine and a cluster that behave; `calls` are what touched them, `failAt` is refused. */
export class World {
  nodes = new Map<string, NodeRecord>([
    ['a', { ...node('a', 1), annotations: {} }],
    ['b', node('b', 2)],
  ]);
  objects: HostObject[] = [];
  tables: ObservedTable[] = [];
  carry: () => void = () => undefined;
  routing: Desired['routing'];
  files: Record<string, string> = {};
  networkUp = false;
  filter: () => readonly [] = () => [];
  masqueradeBy: 'nftables' | 'iptables' = 'nftables';
  readonly #drain = drainOf(this.nodes);
  calls: string[] = [];
  failAt = Number.NaN;
  nowMs = 0;
  facts = hostFacts;
  /** Passes at once. */
  sleep = async (ms: number): Promise<void> => void (this.nowMs += ms);
  /** What the API server takes its time for. */
  answer: (signal: AbortSignal) => Promise<void> = async () => undefined;
  readonly status = new NodeStatus(
    { now: () => 0, monotonicMs: () => this.nowMs, sleep: never },
    silentLogger,
  );
  round = this.restart();

  /** The daemon starts anew: it knows nothing, and the kernel has everything. */
  restart(): PodNetworkRound {
    this.round = new PodNetworkRound(this.#parts());
    return this.round;
  }

  #parts(): RoundParts {
    return {
      options: { ...options, masqueradeBy: this.masqueradeBy },
      nodes: { snapshot: () => new Map(this.nodes), drain: () => this.#drain() },
      host: {
        facts: () => (this.#call('facts'), this.facts),
        observe: () => (this.#call('observe host'), [...this.objects]),
        apply: (steps) => this.#applyHost(steps),
      },
      tables: {
        observe: async () => (this.#call('observe tables'), [...this.tables]),
        apply: async (steps) => (this.#call('apply tables'), this.#applyTables(steps)),
      },
      packetFilter: { converge: async () => this.filter(), doubt: () => undefined },
      forwarder: { apply: async () => this.carry() },
      routing: {
        apply: async (wanted) => void (this.routing = wanted),
        problems: () => [],
      },
      ownNode: {
        annotate: async (patch, signal) => {
          this.#call('annotate');
          await this.answer(signal);
          const own = this.nodes.get('a') ?? node('a', 1);
          const annotations = { ...own.annotations, ...(patch as Record<string, string>) };
          this.nodes.set('a', { ...own, annotations });
        },
        reportNetworkUp: async () => {
          this.#call('condition');
          this.networkUp = true;
        },
      },
      files: {
        writeNodeFile: async (text) => (this.#call('node.json'), this.#write('node.json', text)),
        writeSubnetEnv: async (text) => (this.#call('subnet.env'), this.#write('subnet.env', text)),
        writeConflist: async () => (this.#call('conflist'), this.#write('conflist', 'it')),
      },
      status: this.status,
      metrics: createNodeMetrics(),
      clock: { now: () => 0, monotonicMs: () => this.nowMs, sleep: (ms) => this.sleep(ms) },
      log: silentLogger,
      observeIntervalMs: 30_000,
    };
  }

  #call(name: string): void {
    this.calls.push(name);
    if (this.calls.length === this.failAt) throw new Error(`refused: ${name}`);
  }

  #write(name: string, text: string): void {
    this.files[name] = text;
  }

  /** One call a step; a refused step leaves the others to be done, as the real one does. */
  #applyHost(steps: readonly Step[]): Promise<void> {
    const errors: unknown[] = [];
    for (const step of steps) {
      try {
        this.#call(`${step.op} ${step.object.kind}`);
      } catch (cause) {
        errors.push(new StepError(step, cause));
        continue;
      }
      const replaced = step.op === 'put' ? step.replaces : step.object;
      this.objects = this.objects.filter((o) => replaced === undefined || !same(o, replaced));
      if (step.op === 'put') this.objects.push(step.object);
    }
    if (errors.length > 0) return Promise.reject(new AggregateError(errors, 'Cannot apply'));
    return Promise.resolve();
  }

  #applyTables(steps: readonly NftStep[]): void {
    for (const step of steps) {
      const others = this.tables.filter((table) => !sameTable(table, step.table));
      const [found] = this.tables.filter((table) => sameTable(table, step.table));
      if (step.op === 'replaceTable') others.push(observedOf(step.table));
      else if (step.op !== 'deleteTable' && found !== undefined) {
        const sets = found.sets.map((set) =>
          set.name === step.set ? { ...set, elements: changed(set.elements, step) } : set,
        );
        others.push({ ...found, sets });
      }
      this.tables = others;
    }
  }

  /** What a plan would still change. */
  leftToDo(): unknown[] {
    const want = desiredPodNetwork(this.nodes, this.facts, options);
    if (want.kind === 'not-ready') throw new Error(want.reason);
    const steps = planHostNetwork(want.objects, this.objects);
    return [
      ...steps,
      ...planNftables(want.ruleset, this.tables),
      ...Object.keys(want.annotationPatch),
    ];
  }
}

function changed(elements: ReadonlySet<string>, step: ElementStep): ReadonlySet<string> {
  const changes = new Set(step.elements);
  return step.op === 'addElements' ? elements.union(changes) : elements.difference(changes);
}

const never = (): Promise<never> => new Promise(() => undefined);

function same(a: HostObject, b: HostObject): boolean {
  return planHostNetwork([a], [b]).length === 0;
}

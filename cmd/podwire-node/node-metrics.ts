/** The node daemon's metrics. */
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { Step } from '#pkg/host-network/step.ts';
import type { NftStep } from '#pkg/nftables/plan.ts';

export interface NodeMetrics {
  /** Everything as Prometheus text. */
  readonly render: () => Promise<{ readonly contentType: string; readonly body: string }>;
  readonly roundEnded: (result: 'success' | 'waiting' | 'failure', durationMs: number) => void;
  readonly hostChanged: (steps: readonly Step[]) => void;
  readonly tablesChanged: (steps: readonly NftStep[]) => void;
  /** Read at each scrape. */
  readonly gauges: (read: () => GaugeValues) => void;
  /** Packets of the backend udp, which no device's counters tell apart; read at each scrape. */
  readonly forwarderCounts: (read: () => ForwarderCounts) => void;
}

export interface ForwarderCounts {
  readonly sent: number;
  readonly received: number;
  readonly dropped: number;
}

export interface GaugeValues {
  readonly isReady: boolean;
  readonly nodes: number;
  readonly problems: number;
}

export function createNodeMetrics(): NodeMetrics {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  const rounds = new Histogram({
    name: 'podwire_node_round_duration_seconds',
    help: 'Time one round took: reading what is wanted, planning, applying',
    labelNames: ['result'],
    buckets: Array.from({ length: 15 }, (_, i) => 0.001 * 2 ** i),
    registers,
  });
  const hostSteps = new Counter({
    name: 'podwire_node_host_steps_total',
    help: 'Changes made to links, addresses, routes, neighbours, forwarding entries and sysctls',
    labelNames: ['op', 'kind'],
    registers,
  });
  const tableSteps = new Counter({
    name: 'podwire_node_nft_steps_total',
    help: 'Changes made to the masquerade table',
    labelNames: ['op'],
    registers,
  });
  return {
    render: async () => ({ contentType: registry.contentType, body: await registry.metrics() }),
    roundEnded: (result, durationMs) => rounds.observe({ result }, durationMs / 1000),
    hostChanged: (steps) => {
      // Counted first: a counter with labels takes its time, and a cold start has thousands.
      const counts = new Map<string, { op: string; kind: string; count: number }>();
      for (const { op, object } of steps) {
        const key = `${op} ${object.kind}`;
        const one = counts.get(key);
        if (one === undefined) counts.set(key, { op, kind: object.kind, count: 1 });
        else one.count += 1;
      }
      for (const { op, kind, count } of counts.values()) hostSteps.inc({ op, kind }, count);
    },
    tablesChanged: (steps) => {
      for (const { op } of steps) tableSteps.inc({ op });
    },
    forwarderCounts: (read) => {
      const packets = new Counter({
        name: 'podwire_node_udp_packets_total',
        help: 'Packets that the backend udp carried between its device and other nodes, or dropped',
        labelNames: ['result'],
        registers,
        collect() {
          this.reset();
          for (const [result, count] of Object.entries(read())) this.inc({ result }, count);
        },
      });
      void packets;
    },
    gauges: (read) => {
      const gauge = (name: string, help: string, value: (values: GaugeValues) => number): void => {
        const made: Gauge = new Gauge({
          name: `podwire_node_${name}`,
          help,
          registers,
          collect: () => made.set(value(read())),
        });
      };
      gauge('ready', '1 when the last round succeeded', ({ isReady }) => (isReady ? 1 : 0));
      gauge('nodes', 'Nodes of the cluster, this one included', ({ nodes }) => nodes);
      gauge('problems', 'Problems of single Nodes; the log names them', (v) => v.problems);
    },
  };
}

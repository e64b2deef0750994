/** The metrics that Kubernetes' components share (k8s.io/component-base), for one in Node.js. */
import { Counter, Gauge, Histogram, Registry } from 'prom-client';

export interface AboutComponent {
  readonly version: string;
  /** "linux/amd64" */
  readonly platform: string;
  readonly nodeVersion: string;
  readonly featureGates: readonly {
    readonly name: string;
    readonly stage: string;
    readonly enabled: boolean;
  }[];
}

export interface ComponentMetrics {
  /** A request to the API server was answered, or (no status) was not. */
  readonly apiAnswered: (answer: {
    readonly method: string;
    readonly host: string;
    readonly status: number | undefined;
    readonly durationMs: number;
  }) => void;
  /** A health check was asked for and went well. */
  readonly healthChecked: (name: string) => void;
  /** /metrics/slis: the health checks alone. */
  readonly renderSlis: () => Promise<{ readonly contentType: string; readonly body: string }>;
}

/** client-go's, for requests. */
const requestSeconds = [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60];

/** Registers what every component of Kubernetes tells of itself. */
export function createComponentMetrics(
  registry: Registry,
  about: AboutComponent | undefined,
): ComponentMetrics {
  const registers = [registry];
  if (about !== undefined) describeBuild(registry, about);
  const requests = new Counter({
    name: 'rest_client_requests_total',
    help: 'Requests to the API server by answer, method and host',
    labelNames: ['code', 'method', 'host'],
    registers,
  });
  const latency = new Histogram({
    name: 'rest_client_request_duration_seconds',
    help: 'Time from a request to the API server to the head of its answer',
    labelNames: ['verb', 'host'],
    buckets: requestSeconds,
    registers,
  });
  const slis = new Registry();
  const checks = new Counter({
    name: 'kubernetes_healthchecks_total',
    help: 'Health checks by result',
    labelNames: ['name', 'status', 'type'],
    registers: [slis],
  });
  const check = new Gauge({
    name: 'kubernetes_healthcheck',
    help: 'Whether the last health check went well',
    labelNames: ['name', 'type'],
    registers: [slis],
  });
  return {
    apiAnswered: ({ durationMs, host, method, status }) => {
      requests.inc({ code: status === undefined ? '<error>' : String(status), method, host });
      latency.observe({ verb: method, host }, durationMs / 1000);
    },
    healthChecked: (name) => {
      checks.inc({ name, status: 'success', type: 'healthz' });
      check.set({ name, type: 'healthz' }, 1);
    },
    renderSlis: async () => ({ contentType: slis.contentType, body: await slis.metrics() }),
  };
}

function describeBuild(registry: Registry, about: AboutComponent): void {
  const registers = [registry];
  const [major = '', minor = ''] = about.version.split('.');
  const labels = {
    major,
    minor,
    git_version: `v${about.version}`,
    git_commit: '',
    git_tree_state: '',
    build_date: '',
    // What Go's components say of their language.
    go_version: '',
    compiler: `node ${about.nodeVersion}`,
    platform: about.platform,
  };
  new Gauge({
    name: 'kubernetes_build_info',
    help: 'Which program this is; always 1',
    labelNames: Object.keys(labels),
    registers,
  }).set(labels, 1);
  const gates = new Gauge({
    name: 'kubernetes_feature_enabled',
    help: 'Feature gates: 1 = on',
    labelNames: ['name', 'stage'],
    registers,
  });
  for (const { enabled, name, stage } of about.featureGates) {
    gates.set({ name, stage }, enabled ? 1 : 0);
  }
}

/** kube-proxy's flags as data: what each is called, takes and sets in the configuration. */
import type { FlagName } from '#pkg/config/command-line.ts';
import { parseDuration } from '#pkg/config/duration.ts';
import { withPort, type CompleteProxyConfig } from '#pkg/config/proxy-config-defaults.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';

/** A configuration that flags write into. */
export type Draft = Mutable<CompleteProxyConfig>;
type Mutable<T> = T extends readonly (infer E)[]
  ? E[]
  : T extends object
    ? { -readonly [K in keyof T]: Mutable<T[K]> }
    : T;

export interface Flag extends FlagName {
  readonly help: string;
  /** What it takes, for the help: "<duration>"; empty for a boolean. */
  readonly takes: string;
  /** It counts beside --config too. */
  readonly besideFile: boolean;
  /** Puts the value into a configuration; nothing for flags that are no part of one. */
  readonly set: (draft: Draft, value: string) => void;
}

type Apply<T> = (draft: Draft, value: T) => void;
const nothing = (): void => undefined;

const string = (name: string, help: string, set: Apply<string> = nothing): Flag => ({
  name,
  help,
  takes: '<text>',
  isBoolean: false,
  besideFile: false,
  set,
});
const boolean = (name: string, help: string, set: Apply<boolean> = nothing): Flag => ({
  ...string(name, help),
  takes: '',
  isBoolean: true,
  set: (draft, value) => set(draft, parseBoolean(name, value)),
});
const integer = (name: string, help: string, set: Apply<number> = nothing): Flag => ({
  ...string(name, help),
  takes: '<number>',
  set: (draft, value) => set(draft, parseNumber(name, value, /^[+-]?\d{1,10}$/)),
});
const duration = (name: string, help: string, set: Apply<number>): Flag => ({
  ...string(name, help),
  takes: '<duration>',
  set: (draft, value) => {
    const ms = parseDuration(value);
    if (ms === undefined) throw wrong(name, value, 'a duration as 30s or 1m30s');
    set(draft, ms);
  },
});
/** Given again, it adds. */
const list = (name: string, help: string, of: (draft: Draft) => string[]): Flag => ({
  ...string(name, help),
  takes: '<text,text>',
  set: (draft, value) => void of(draft).push(...value.split(',').filter((entry) => entry !== '')),
});
const counted = (flag: Flag): Flag => ({ ...flag, besideFile: true });

/** Kubernetes' logging flags; ours are JSON lines, so only -v changes what is logged. */
const logging: readonly Flag[] = [
  {
    ...integer('v', 'verbosity; 2 and more log details', (c, v) => (c.logging.verbosity = v)),
    shorthand: 'v',
  },
  string('vmodule', 'verbosity by file; no effect here', (c, v) => {
    c.logging.vmodule = parseVmodule(v);
  }),
  string('logging-format', 'text or json; logs are JSON lines in any case', (c, v) => {
    c.logging.format = v;
  }),
  duration('log-flush-frequency', 'no effect here: each line is written at once', (c, v) => {
    c.logging.flushFrequency = v;
  }),
  boolean('log-json-split-stream', 'no effect here', (c, v) => {
    c.logging.options.json.splitStream = v;
  }),
  string('log-json-info-buffer-size', 'no effect here', (c, v) => {
    c.logging.options.json.infoBufferSize = v;
  }),
  boolean('log-text-split-stream', 'no effect here', (c, v) => {
    c.logging.options.text.splitStream = v;
  }),
  string('log-text-info-buffer-size', 'no effect here', (c, v) => {
    c.logging.options.text.infoBufferSize = v;
  }),
].map(counted);

/** What the program does, rather than how. */
const actions: readonly Flag[] = [
  string('config', 'a KubeProxyConfiguration; flags of the configuration then do not count'),
  string('write-config-to', 'write the configuration with its defaults to this file, and exit'),
  boolean('cleanup', 'remove the rules of kube-proxy and podwire-proxy in every mode, and exit'),
  boolean('strict-mode', 'fail where mode ipvs is not possible, rather than use iptables'),
  boolean('init-only', 'make the settings that need full privileges, and exit'),
  string('hostname-override', 'name of this Node object; else NODE_NAME, else the host'),
  string('master', "the API server's URL, instead of the kubeconfig's"),
  string('apiserver', 'the same as --master'),
  boolean('version', 'print the version, and exit'),
  { ...boolean('help', 'print this, and exit'), shorthand: 'h' },
  string('boot-id-file', 'no effect here'),
  string('machine-id-file', 'no effect here'),
].map(counted);

export const flags: readonly Flag[] = [
  ...actions,
  ...logging,
  string('kubeconfig', 'how to reach the API server; none = in-cluster', (c, v) => {
    c.clientConnection.kubeconfig = v;
  }),
  string('kube-api-content-type', 'no effect here: JSON', (c, v) => {
    c.clientConnection.contentType = v;
  }),
  integer('kube-api-burst', 'no effect here', (c, v) => (c.clientConnection.burst = v)),
  {
    ...string('kube-api-qps', 'no effect here', (c, v) => {
      c.clientConnection.qps = parseNumber('kube-api-qps', v, /^[+-]?(?:\d+\.?\d*|\.\d+)$/);
    }),
    takes: '<number>',
  },
  string('feature-gates', 'name=true,name=false', (c, v) => {
    Object.assign(c.featureGates, parseGates(v));
  }),
  string('bind-address', "this node's address, instead of the Node object's", (c, v) => {
    c.bindAddress = v;
  }),
  string('healthz-bind-address', 'where /healthz and /livez answer; empty = nowhere', (c, v) => {
    c.healthzBindAddress = server(v, 10256);
  }),
  string('metrics-bind-address', 'where /metrics answers; empty = nowhere', (c, v) => {
    c.metricsBindAddress = server(v, 10249);
  }),
  integer('healthz-port', 'deprecated: 0 turns --healthz-bind-address off', (c, v) => {
    c.healthzBindAddress = v === 0 ? off : withPort(c.healthzBindAddress, v);
  }),
  integer('metrics-port', 'deprecated: 0 turns --metrics-bind-address off', (c, v) => {
    c.metricsBindAddress = v === 0 ? off : withPort(c.metricsBindAddress, v);
  }),
  boolean('bind-address-hard-fail', 'exit when an address above cannot be listened on', (c, v) => {
    c.bindAddressHardFail = v;
  }),
  boolean('profiling', 'answer PUT /debug/flags/v; no pprof, which is for Go programs', (c, v) => {
    c.enableProfiling = v;
  }),
  string('show-hidden-metrics-for-version', 'no effect here: none is hidden', (c, v) => {
    c.showHiddenMetricsForVersion = v;
  }),
  string('proxy-mode', 'iptables, nftables or ipvs', (c, v) => (c.mode = v || 'iptables')),
  integer('iptables-masquerade-bit', 'bit of the mark that asks for masquerade', (c, v) => {
    c.iptables.masqueradeBit = v;
    c.nftables.masqueradeBit = v;
  }),
  boolean('masquerade-all', 'masquerade all traffic to cluster addresses', (c, v) => {
    c.iptables.masqueradeAll = v;
    c.nftables.masqueradeAll = v;
  }),
  boolean('iptables-localhost-nodeports', 'node ports answer on 127.0.0.1 too', (c, v) => {
    c.iptables.localhostNodePorts = v;
  }),
  duration('iptables-sync-period', 'how often rules are compared with the kernel', (c, v) => {
    c.iptables.syncPeriod = v;
    c.nftables.syncPeriod = v;
  }),
  duration('iptables-min-sync-period', 'least time between two changes of rules', (c, v) => {
    c.iptables.minSyncPeriod = v;
    c.nftables.minSyncPeriod = v;
  }),
  duration('ipvs-sync-period', 'the same in mode ipvs', (c, v) => (c.ipvs.syncPeriod = v)),
  duration('ipvs-min-sync-period', 'the same in mode ipvs', (c, v) => {
    c.ipvs.minSyncPeriod = v;
  }),
  string('ipvs-scheduler', 'how ipvs chooses an endpoint (rr)', (c, v) => (c.ipvs.scheduler = v)),
  list('ipvs-exclude-cidrs', 'virtual servers to leave alone', (c) => c.ipvs.excludeCIDRs),
  boolean('ipvs-strict-arp', 'do not answer ARP for Service addresses', (c, v) => {
    c.ipvs.strictARP = v;
  }),
  duration('ipvs-tcp-timeout', 'of idle connections; 0 = as it is', (c, v) => {
    c.ipvs.tcpTimeout = v;
  }),
  duration('ipvs-tcpfin-timeout', 'after a FIN; 0 = as it is', (c, v) => {
    c.ipvs.tcpFinTimeout = v;
  }),
  duration('ipvs-udp-timeout', 'of UDP; 0 = as it is', (c, v) => (c.ipvs.udpTimeout = v)),
  string('detect-local-mode', 'how to tell pods of this node', (c, v) => {
    c.detectLocalMode = v || 'ClusterCIDR';
  }),
  string('pod-bridge-interface', 'for --detect-local-mode BridgeInterface', (c, v) => {
    c.detectLocal.bridgeInterface = v;
  }),
  string('pod-interface-name-prefix', 'for --detect-local-mode InterfaceNamePrefix', (c, v) => {
    c.detectLocal.interfaceNamePrefix = v;
  }),
  string('cluster-cidr', 'range of pods, one a family', (c, v) => (c.clusterCIDR = v)),
  list('nodeport-addresses', 'where node ports answer; none = all', (c) => c.nodePortAddresses),
  integer('oom-score-adj', '-1000 to 1000', (c, v) => (c.oomScoreAdj = v)),
  integer('conntrack-max-per-core', '0 = leave nf_conntrack_max as it is', (c, v) => {
    c.conntrack.maxPerCore = v;
  }),
  integer('conntrack-min', 'least nf_conntrack_max', (c, v) => (c.conntrack.min = v)),
  duration('conntrack-tcp-timeout-established', '0 = as it is', (c, v) => {
    c.conntrack.tcpEstablishedTimeout = v;
  }),
  duration('conntrack-tcp-timeout-close-wait', '0 = as it is', (c, v) => {
    c.conntrack.tcpCloseWaitTimeout = v;
  }),
  boolean('conntrack-tcp-be-liberal', 'out-of-window packets are not INVALID', (c, v) => {
    c.conntrack.tcpBeLiberal = v;
  }),
  duration('conntrack-udp-timeout', '0 = as it is', (c, v) => (c.conntrack.udpTimeout = v)),
  duration('conntrack-udp-timeout-stream', '0 = as it is', (c, v) => {
    c.conntrack.udpStreamTimeout = v;
  }),
  duration('config-sync-period', 'no effect here: watches need no refresh', (c, v) => {
    c.configSyncPeriod = v;
  }),
];

/** The help text. */
export function usage(program: string): string {
  const lines = flags.map(({ help, name, takes }) => {
    const left = `  ${name.length === 1 ? '-' : '--'}${name}${takes === '' ? '' : `=${takes}`}`;
    return `${left.padEnd(44)} ${help}`;
  });
  return `Usage: ${program} [flags]\n\nServes Kubernetes Services on this node, in place of kube-proxy\n\nFlags:\n${lines.join('\n')}\n`;
}

/** As an address in a file it is read the same. */
const off = '0.0.0.0:0';

function server(value: string, port: number): string {
  return value === '' ? off : withPort(value, port);
}

/** What Go's strconv.ParseBool takes. */
export function parseBoolean(flag: string, value: string): boolean {
  if (/^(?:1|t|T|true|TRUE|True)$/.test(value)) return true;
  if (/^(?:0|f|F|false|FALSE|False)$/.test(value)) return false;
  throw wrong(flag, value, 'true or false');
}

function parseNumber(flag: string, value: string, form: RegExp): number {
  if (!form.test(value)) throw wrong(flag, value, 'a number');
  return Number(value);
}

function parseGates(value: string): Record<string, boolean> {
  const pairs = value.split(',').filter((pair) => pair.trim() !== '');
  return Object.fromEntries(
    pairs.map((pair) => {
      const [name = '', enabled, ...rest] = pair.split('=').map((part) => part.trim());
      if (name === '' || enabled === undefined || rest.length > 0) {
        throw wrong('feature-gates', value, 'name=true,name=false');
      }
      return [name, parseBoolean('feature-gates', enabled)];
    }),
  );
}

function parseVmodule(value: string): Draft['logging']['vmodule'] {
  const pairs = value.split(',').filter((pair) => pair !== '');
  return pairs.map((pair) => {
    const [, filePattern = '', verbosity = ''] = /^([^=]+)=(\d+)$/.exec(pair) ?? [];
    if (filePattern === '') throw wrong('vmodule', value, 'pattern=number,pattern=number');
    return { filePattern, verbosity: Number(verbosity) };
  });
}

function wrong(flag: string, value: string, expected: string): AgentError {
  return new AgentError(
    'WrongUsage',
    `Cannot use --${flag} ${JSON.stringify(value)}: expected ${expected}`,
  );
}

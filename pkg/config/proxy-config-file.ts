/** The file format of kube-proxy: KubeProxyConfiguration, kubeproxy.config.k8s.io/v1alpha1. */
import { parseDocument, type YAMLError } from 'yaml';
import { z } from 'zod';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { parseDuration } from './duration.ts';
import { nearestName } from './nearest-name.ts';
import { yamlReason } from './yaml-reason.ts';

export const configApiVersion = 'kubeproxy.config.k8s.io/v1alpha1';
export const configKind = 'KubeProxyConfiguration';

/** Absent, null and the zero value mean the same in this format: the default. */
function optional<T extends z.ZodType>(type: T): z.ZodType<z.output<T> | undefined> {
  return type.nullish().transform((value) => value ?? undefined);
}

const string = optional(z.string());
const boolean = optional(z.boolean());
const integer = optional(z.int());
const strings = optional(z.array(z.string()));
/** In milliseconds. */
const duration = optional(
  z.string().transform((value, context) => {
    const ms = parseDuration(value);
    if (ms !== undefined) return ms;
    context.addIssue({ code: 'custom', message: 'expected a duration as "30s" or "1m30s"' });
    return z.NEVER;
  }),
);
const keysOfSections = new WeakMap<object, readonly string[]>();
function section<T extends z.ZodRawShape>(
  shape: T,
): z.ZodType<z.output<z.ZodObject<T>> | undefined> {
  const type = optional(z.strictObject(shape));
  keysOfSections.set(type, Object.keys(shape));
  return type;
}
/** Go's time.Duration: nanoseconds, or a text as elsewhere. */
const nanosecondsOrDuration = optional(
  z.union([z.int().transform((nanoseconds) => nanoseconds / 1e6), duration]),
);
/** resource.Quantity, kept as it is written. */
const quantity = optional(z.union([z.string(), z.number().transform(String)]));
/** A path of the format that concerns Windows only, or nothing here, is read and kept. */
const bufferedStream = { infoBufferSize: quantity, splitStream: boolean };

const schema = z.strictObject({
  apiVersion: z.literal(configApiVersion),
  kind: z.literal(configKind),
  clientConnection: section({
    kubeconfig: string,
    acceptContentTypes: string,
    contentType: string,
    qps: optional(z.number()),
    burst: integer,
  }),
  logging: section({
    format: string,
    flushFrequency: nanosecondsOrDuration,
    verbosity: integer,
    vmodule: optional(z.array(z.strictObject({ filePattern: z.string(), verbosity: z.int() }))),
    options: section({ json: section(bufferedStream), text: section(bufferedStream) }),
  }),
  hostnameOverride: string,
  bindAddress: string,
  healthzBindAddress: string,
  metricsBindAddress: string,
  bindAddressHardFail: boolean,
  enableProfiling: boolean,
  showHiddenMetricsForVersion: string,
  mode: string,
  iptables: section({
    masqueradeBit: integer,
    masqueradeAll: boolean,
    localhostNodePorts: boolean,
    /** Ours, not kube-proxy's: how KUBE-SERVICES finds a Service. */
    layout: string,
    syncPeriod: duration,
    minSyncPeriod: duration,
  }),
  ipvs: section({
    syncPeriod: duration,
    minSyncPeriod: duration,
    scheduler: string,
    /** Ours, not kube-proxy's: what else the scheduler is told. */
    schedulerFlags: strings,
    excludeCIDRs: strings,
    strictARP: boolean,
    tcpTimeout: duration,
    tcpFinTimeout: duration,
    udpTimeout: duration,
  }),
  nftables: section({
    masqueradeBit: integer,
    masqueradeAll: boolean,
    /** Ours, not kube-proxy's: what is counted, and of how many Services /metrics tells it. */
    counters: string,
    serviceMetrics: integer,
    traffic: boolean,
    syncPeriod: duration,
    minSyncPeriod: duration,
  }),
  winkernel: section({
    networkName: string,
    sourceVip: string,
    enableDSR: boolean,
    rootHnsEndpointName: string,
    forwardHealthCheckVip: boolean,
  }),
  detectLocalMode: string,
  detectLocal: section({ bridgeInterface: string, interfaceNamePrefix: string }),
  clusterCIDR: string,
  nodePortAddresses: strings,
  oomScoreAdj: integer,
  conntrack: section({
    maxPerCore: integer,
    min: integer,
    tcpEstablishedTimeout: duration,
    tcpCloseWaitTimeout: duration,
    tcpBeLiberal: boolean,
    udpTimeout: duration,
    udpStreamTimeout: duration,
  }),
  configSyncPeriod: duration,
  portRange: string,
  windowsRunAsService: boolean,
  featureGates: optional(z.record(z.string(), z.boolean())),
});

/** Sections and fields that are absent are undefined; durations are in milliseconds. */
export type ProxyConfigFile = Readonly<Partial<z.output<typeof schema>>>;

/**
 * Reads the file. As in kube-proxy, a version or kind that is not ours and a field of a wrong type
 * are errors; an unknown or repeated field is a warning, since a file written for a newer version
 * must not stop the node's Services. Of a repeated field the last one counts.
 *
 * @param source names the file in errors
 * @throws {AgentError} InvalidConfig, naming every field of a wrong type
 */
export function parseProxyConfigFile(
  yaml: string,
  source: string,
): { readonly file: ProxyConfigFile; readonly warnings: readonly string[] } {
  const { data, warnings } = parseFields(yaml, source);
  requireVersion(data, source);
  const first = schema.safeParse(data);
  if (first.success) return { file: first.data, warnings };
  const unknown = first.error.issues.filter((issue) => issue.code === 'unrecognized_keys');
  for (const { keys, path } of unknown) {
    const parent = at(data, path);
    for (const key of keys) {
      warnings.push(`unknown field ${[...path, key].join('.')}${suggestion(path, key)}`);
      if (typeof parent === 'object' && parent !== null) Reflect.deleteProperty(parent, key);
    }
  }
  const second = schema.safeParse(data);
  if (second.success) return { file: second.data, warnings };
  const reasons = second.error.issues.map(({ message, path }) =>
    path.length === 0 ? message : `${path.join('.')}: ${message}`,
  );
  throw new AgentError('InvalidConfig', `Cannot use ${source}: ${reasons.join('; ')}`);
}

function parseFields(
  yaml: string,
  source: string,
): { readonly data: unknown; readonly warnings: string[] } {
  const strict = parseDocument(yaml);
  const repeated = strict.errors.filter(isRepeatedKey);
  const wrong = strict.errors.find((error) => !isRepeatedKey(error));
  if (wrong !== undefined) throw noYaml(source, wrong);
  const document = repeated.length === 0 ? strict : parseDocument(yaml, { uniqueKeys: false });
  const warnings = repeated.map(
    ({ linePos }) => `repeated field in line ${linePos?.[0].line ?? 0}, the last one counts`,
  );
  try {
    return { data: document.toJS(), warnings };
  } catch (error) {
    throw noYaml(source, error);
  }
}

function isRepeatedKey(error: YAMLError): boolean {
  return error.code === 'DUPLICATE_KEY';
}

function noYaml(source: string, error: unknown): AgentError {
  const reason = yamlReason(error);
  return new AgentError('InvalidConfig', `Cannot read ${source}: expected YAML: ${reason}`);
}

/** Checked apart from the rest: what follows only makes sense for this format. */
function requireVersion(data: unknown, source: string): void {
  const [apiVersion, kind] = [at(data, ['apiVersion']), at(data, ['kind'])];
  if (apiVersion === configApiVersion && kind === configKind) return;
  throw new AgentError(
    'InvalidConfig',
    `Cannot use ${source}: apiVersion ${shown(apiVersion)}, kind ${shown(kind)}: expected ${configApiVersion}, ${configKind}`,
  );
}

function shown(value: unknown): string {
  return value === undefined ? 'missing' : JSON.stringify(value);
}

function suggestion(path: readonly PropertyKey[], key: string): string {
  const nearest = nearestName(key, keysAt(path));
  return nearest === undefined ? '' : `, did you mean ${nearest}?`;
}

/** The fields of the section at this path; none of deeper ones, which have few. */
function keysAt(path: readonly PropertyKey[]): readonly string[] {
  if (path.length === 0) return Object.keys(schema.shape);
  const type = path.length === 1 ? Reflect.get(schema.shape, path[0] ?? '') : undefined;
  return (type instanceof Object ? keysOfSections.get(type) : undefined) ?? [];
}

function at(data: unknown, path: readonly PropertyKey[]): unknown {
  let value = data;
  for (const key of path) {
    if (typeof value !== 'object' || value === null) return undefined;
    value = (value as Readonly<Record<PropertyKey, unknown>>)[key];
  }
  return value;
}

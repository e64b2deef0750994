/** The file format of kube-proxy: KubeProxyConfiguration, kubeproxy.config.k8s.io/v1alpha1. */
import { parse as parseYaml } from 'yaml';
import { z } from 'zod';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { parseDuration } from './duration.ts';
import { nearestName } from './nearest-name.ts';

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
const section = <T extends z.ZodRawShape>(
  shape: T,
): z.ZodType<z.output<z.ZodObject<T>> | undefined> => optional(z.strictObject(shape));
const accepted = z.unknown().optional();

const schema = z.strictObject({
  apiVersion: z.literal('kubeproxy.config.k8s.io/v1alpha1'),
  kind: z.literal('KubeProxyConfiguration'),
  clientConnection: section({
    kubeconfig: string,
    acceptContentTypes: string,
    contentType: string,
    qps: optional(z.number()),
    burst: integer,
  }),
  logging: section({
    format: string,
    flushFrequency: accepted,
    verbosity: integer,
    vmodule: accepted,
    options: accepted,
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
    layout: string,
    masqueradeBit: integer,
    masqueradeAll: boolean,
    localhostNodePorts: boolean,
    syncPeriod: duration,
    minSyncPeriod: duration,
  }),
  ipvs: section({
    syncPeriod: duration,
    minSyncPeriod: duration,
    scheduler: string,
    excludeCIDRs: strings,
    strictARP: boolean,
    tcpTimeout: duration,
    tcpFinTimeout: duration,
    udpTimeout: duration,
  }),
  nftables: section({
    masqueradeBit: integer,
    masqueradeAll: boolean,
    syncPeriod: duration,
    minSyncPeriod: duration,
  }),
  winkernel: accepted,
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
 * Reads the file. Unknown fields are warnings, not errors: kube-proxy is lenient with them, and a
 * file written for a newer version must not stop the node's Services.
 *
 * @param source names the file in errors
 * @throws {AgentError} InvalidConfig, naming every field of a wrong type
 */
export function parseProxyConfigFile(
  yaml: string,
  source: string,
): { readonly file: ProxyConfigFile; readonly warnings: readonly string[] } {
  let data: unknown;
  try {
    data = parseYaml(yaml);
  } catch (cause) {
    throw new AgentError('InvalidConfig', `Cannot read ${source}: expected YAML`, { cause });
  }
  const warnings: string[] = [];
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

function suggestion(path: readonly PropertyKey[], key: string): string {
  return path.length > 0 ? '' : `, did you mean ${nearestName(key, Object.keys(schema.shape))}?`;
}

function at(data: unknown, path: readonly PropertyKey[]): unknown {
  let value = data;
  for (const key of path) {
    if (typeof value !== 'object' || value === null) return undefined;
    value = (value as Readonly<Record<PropertyKey, unknown>>)[key];
  }
  return value;
}

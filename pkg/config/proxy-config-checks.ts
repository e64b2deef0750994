/** The rules for a KubeProxyConfiguration, those of kube-proxy's own validation. Pure. */
import { knownSchedulerFlags, noFlags } from '#pkg/ipvs/scheduler-flags.ts';
import { formatDuration } from './duration.ts';
import type { CompleteProxyConfig } from './proxy-config-defaults.ts';

/** A field that cannot be used as it is. */
export interface FieldProblem {
  /** "iptables.masqueradeBit". */
  readonly path: string;
  readonly value: unknown;
  readonly expected: string;
}

/** "iptables.masqueradeBit 32: expected a number from 0 to 31". */
export function formatProblem({ expected, path, value }: FieldProblem): string {
  return `${path} ${JSON.stringify(value)}: expected ${expected}`;
}

/**
 * Numbers, periods and names. Periods of a mode that is not in use do not matter, as in kube-proxy.
 * The name of the ipvs scheduler is not checked: any that the kernel has a module for works.
 */
export function checkProxyConfig(config: CompleteProxyConfig): FieldProblem[] {
  const { conntrack, ipvs } = config;
  return [
    ...range('iptables.masqueradeBit', config.iptables.masqueradeBit, 0, 31),
    ...range('nftables.masqueradeBit', config.nftables.masqueradeBit, 0, 31),
    ...oneOf('iptables.layout', config.iptables.layout, ['compatible', 'tree']),
    ...oneOf('nftables.counters', config.nftables.counters, ['none', 'services', 'endpoints']),
    ...range('nftables.serviceMetrics', config.nftables.serviceMetrics, 0, 10_000),
    ...oneOf('mode', config.mode, ['iptables', 'ipvs', 'nftables']),
    ...checkPeriods(config),
    ...(config.mode === 'ipvs'
      ? [
          ...notNegative('ipvs.tcpTimeout', ipvs.tcpTimeout),
          ...notNegative('ipvs.tcpFinTimeout', ipvs.tcpFinTimeout),
          ...notNegative('ipvs.udpTimeout', ipvs.udpTimeout),
          ...checkSchedulerFlags(ipvs),
        ]
      : []),
    ...range('oomScoreAdj', config.oomScoreAdj, -1000, 1000),
    ...least('conntrack.maxPerCore', conntrack.maxPerCore),
    ...least('conntrack.min', conntrack.min),
    ...notNegative('conntrack.tcpEstablishedTimeout', conntrack.tcpEstablishedTimeout),
    ...notNegative('conntrack.tcpCloseWaitTimeout', conntrack.tcpCloseWaitTimeout),
    ...notNegative('conntrack.udpTimeout', conntrack.udpTimeout),
    ...notNegative('conntrack.udpStreamTimeout', conntrack.udpStreamTimeout),
    ...(config.configSyncPeriod > 0
      ? []
      : [problem('configSyncPeriod', formatDuration(config.configSyncPeriod), 'more than 0s')]),
    ...least('clientConnection.burst', config.clientConnection.burst),
    ...checkLogging(config),
    ...checkHiddenMetrics(config.showHiddenMetricsForVersion),
    ...checkDetectLocal(config),
  ];
}

function checkSchedulerFlags({
  scheduler,
  schedulerFlags,
}: CompleteProxyConfig['ipvs']): FieldProblem[] {
  const name = scheduler || 'rr';
  const known = knownSchedulerFlags(name);
  const isNone = schedulerFlags.length === 1 && schedulerFlags[0] === noFlags;
  if (isNone || schedulerFlags.every((flag) => known.includes(flag))) return [];
  const some = known.length > 0 ? `${known.join(', ')} (both or one), or ` : '';
  const expected = `${some}${noFlags}, for scheduler ${name}`;
  return [problem('ipvs.schedulerFlags', schedulerFlags, expected)];
}

function checkPeriods(config: CompleteProxyConfig): FieldProblem[] {
  const mode = config.mode === 'ipvs' || config.mode === 'nftables' ? config.mode : 'iptables';
  const { minSyncPeriod, syncPeriod } = config[mode];
  const problems: FieldProblem[] = [];
  if (syncPeriod <= 0) {
    problems.push(problem(`${mode}.syncPeriod`, formatDuration(syncPeriod), 'more than 0s'));
  }
  if (minSyncPeriod < 0 || minSyncPeriod > syncPeriod) {
    const expected = `at least 0s and at most ${mode}.syncPeriod, ${formatDuration(syncPeriod)}`;
    problems.push(problem(`${mode}.minSyncPeriod`, formatDuration(minSyncPeriod), expected));
  }
  return problems;
}

function checkLogging({ logging }: CompleteProxyConfig): FieldProblem[] {
  return [
    ...oneOf('logging.format', logging.format, ['text', 'json']),
    ...range('logging.verbosity', logging.verbosity, 0, 2 ** 31 - 1),
    ...(logging.flushFrequency >= 0
      ? []
      : [problem('logging.flushFrequency', formatDuration(logging.flushFrequency), 'at least 0s')]),
  ];
}

function checkHiddenMetrics(version: string): FieldProblem[] {
  if (version === '' || /^\d+\.\d+$/.test(version)) return [];
  return [problem('showHiddenMetricsForVersion', version, 'a version as 1.35')];
}

/** IFNAMSIZ is 16 with its zero; the rest is what iptables cannot match or would read otherwise. */
const interfaceName = /^[^\s/"'\\+!]{1,15}$/;

function checkDetectLocal({ detectLocal, detectLocalMode }: CompleteProxyConfig): FieldProblem[] {
  const { bridgeInterface, interfaceNamePrefix } = detectLocal;
  const modes = ['ClusterCIDR', 'NodeCIDR', 'BridgeInterface', 'InterfaceNamePrefix'];
  const problems = oneOf('detectLocalMode', detectLocalMode, modes);
  if (detectLocalMode === 'BridgeInterface' && !interfaceName.test(bridgeInterface)) {
    const expected = 'the name of an interface';
    problems.push(problem('detectLocal.bridgeInterface', bridgeInterface, expected));
  }
  if (detectLocalMode === 'InterfaceNamePrefix' && !interfaceName.test(interfaceNamePrefix)) {
    const expected = "the start of interfaces' names";
    problems.push(problem('detectLocal.interfaceNamePrefix', interfaceNamePrefix, expected));
  }
  return problems;
}

function oneOf(path: string, value: string, choices: readonly string[]): FieldProblem[] {
  if (choices.includes(value)) return [];
  return [problem(path, value, `one of ${choices.join(', ')}`)];
}

function range(path: string, value: number, from: number, to: number): FieldProblem[] {
  if (Number.isInteger(value) && value >= from && value <= to) return [];
  return [problem(path, value, `a number from ${from} to ${to}`)];
}

function least(path: string, value: number): FieldProblem[] {
  return value >= 0 ? [] : [problem(path, value, 'at least 0')];
}

function notNegative(path: string, ms: number): FieldProblem[] {
  return ms >= 0 ? [] : [problem(path, formatDuration(ms), 'at least 0s')];
}

function problem(path: string, value: unknown, expected: string): FieldProblem {
  return { path, value, expected };
}

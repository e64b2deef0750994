/**
 * Scenarios in words of packets, put to every mode whose rules a tracer can follow, in both
 * families. Of IPVS the tracer knows what the kernel may choose, and when it is asked.
 */
import { describe, expect, it } from 'vitest';
import { families, type Family } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { renderSave } from '#pkg/iptables/render.ts';
import { renderTable } from '#pkg/nftables/render.ts';
import type { ServiceRecord } from '#pkg/kube/types.ts';
import type { IptablesOptions } from '#pkg/proxy/iptables-options.ts';
import type { NftablesOptions } from '#pkg/proxy/nftables-options.ts';
import { nodePortTargets } from '#pkg/proxy/node-port-addresses.ts';
import { ipvsRules, isIpvs, writtenIpvs } from './ipvs-trace.ts';
import { table } from './nftables.ts';
import { places, type Place, type Places } from './places.ts';
import { at, p80, portsOf, ruleset, service, type Cluster } from './records.ts';
import { trace, type TracedPacket, type TracedRules } from './traces.ts';

export type Program = 'iptables' | 'ipvs' | 'nftables';

/** What a mode is told of its node; a mode that knows no such setting goes without it. */
export interface NodeSettings extends Partial<
  Pick<
    IptablesOptions & NftablesOptions,
    | 'conntrackLiberal'
    | 'localDetector'
    | 'localhostNodePorts'
    | 'masqueradeAll'
    | 'masqueradeBit'
    | 'serviceCIDRs'
  >
> {
  /** As in the configuration; without them each mode does what it does by default. */
  readonly nodePortAddresses?: readonly string[];
}

/** A verdict on which modes differ on purpose. */
export interface Differing extends Readonly<Record<Exclude<Program, 'ipvs'>, string>> {
  /** As in mode iptables if nothing is said. */
  readonly ipvs?: string;
  readonly why: string;
}

/**
 * From where, to where, and what becomes of it: "drop", "reject", "unmatched", or the endpoints
 * that may be chosen, "near:80, far:80 masqueraded". Places are those of `places`, or addresses.
 */
export type Row = readonly [
  from: Place | `${string}.${string}`,
  to: `${Place}:${number}`,
  verdict: string | Differing,
  how?: Pick<TracedPacket, 'protocol' | 'inInterface' | 'state'>,
];

export interface Scenario {
  readonly title: string;
  readonly cluster: (at: Places) => Cluster;
  readonly node?: NodeSettings;
  /** Why it is put to one program or family only. */
  readonly only?: { readonly program?: Program; readonly family?: Family; readonly why: string };
  readonly packets: readonly Row[];
  /** A cluster that looks different and gives the same rules to the letter. */
  readonly sameAs?: (at: Places) => Cluster;
  /** What the rules do not contain. */
  readonly unwritten?: RegExp;
}

/** A Service with an address of each kind. */
export function balanced(of: Places, fields: Partial<ServiceRecord> = {}): ServiceRecord {
  return service('ns1/svc1', {
    type: 'LoadBalancer',
    clusterIPs: [of.clusterIP],
    externalIPs: [of.externalIP],
    loadBalancerIngress: [{ ip: of.loadBalancer, ipMode: 'VIP' }],
    ports: p80(3001),
    ...fields,
  });
}

interface Mode {
  readonly name: string;
  readonly program: Program;
  rules(cluster: Cluster, family: Family, settings: NodeSettings): TracedRules;
}

const modes: readonly Mode[] = [
  ...(['compatible', 'tree'] as const).map((layout): Mode => {
    return {
      name: `iptables, layout ${layout}`,
      program: 'iptables',
      rules: (cluster, family, settings) =>
        ruleset(cluster, { family, layout, ...optionsOf(family, settings) }),
    };
  }),
  ...(['none', 'endpoints'] as const).map((counters): Mode => {
    return {
      name: `nftables, counters ${counters}`,
      program: 'nftables',
      rules: (cluster, family, settings) =>
        table(cluster, { family, counters, ...optionsOf(family, settings) }),
    };
  }),
  {
    name: 'ipvs',
    program: 'ipvs',
    rules: (cluster, family, settings) => {
      const { nodePortAddresses, ...rest } = optionsOf(family, settings);
      const { node, second } = places[family];
      const own = [node, second];
      const answering = nodePortAddresses === undefined || nodePortAddresses === 'all' ? own : own.filter((a) => nodePortAddresses.includes(a));
      return ipvsRules(portsOf(cluster, family), { family, ...rest, nodePortAddresses: answering });
    },
  },
];

type Settings = Omit<NodeSettings, 'nodePortAddresses'> &
  Partial<Pick<IptablesOptions, 'nodePortAddresses'>>;

function optionsOf(family: Family, { nodePortAddresses, ...settings }: NodeSettings): Settings {
  if (nodePortAddresses === undefined) return settings;
  const { node, second, loopback } = places[family];
  const host = { all: [node, second, loopback], primary: node };
  const ranges = nodePortAddresses.map(parsePrefix);
  return { ...settings, nodePortAddresses: nodePortTargets(ranges, family, host) };
}

/** Makes a test of each scenario in each mode and family that it is for. */
export function testVerdicts(scenarios: readonly Scenario[]): void {
  for (const mode of modes) {
    for (const family of families) {
      const asked = scenarios.filter(
        ({ only }) =>
          (only?.program ?? mode.program) === mode.program && (only?.family ?? family) === family,
      );
      if (asked.length === 0) continue;
      // Not by describe.each and it.each, which cut long titles, and with them the numbers.
      describe(`${mode.name}, ${family}`, () => {
        for (const scenario of asked)
          it(scenario.title, () => testScenario(scenario, mode, family));
      });
    }
  }
}

function testScenario(scenario: Scenario, mode: Mode, family: Family): void {
  const { packets, sameAs, unwritten } = scenario;
  const rulesOf = (cluster: Scenario['cluster']): TracedRules =>
    mode.rules(cluster(places[family]), family, scenario.node ?? {});
  const rules = rulesOf(scenario.cluster);
  const met = packets.map((row) => [nameOf(row), told(trace(rules, packetOf(row, family)))]);
  expect(met).toEqual(packets.map((row) => [nameOf(row), wanted(row, mode.program)]));
  if (sameAs !== undefined) expect(written(rulesOf(sameAs))).toBe(written(rules));
  if (unwritten !== undefined) expect(written(rules)).not.toMatch(unwritten);
}

function nameOf([from, to, , how = {}]: Row): string {
  return [`${from} to ${to}`, ...Object.values(how)].join(', ');
}

function packetOf([from, to, , how = {}]: Row, family: Family): TracedPacket {
  const [place = '', port] = to.split(':');
  return {
    ...how,
    source: addressOf(from, family),
    to: at(addressOf(place, family), Number(port)),
  };
}

function addressOf(text: string, family: Family): string {
  const address = (places[family] as Readonly<Record<string, string>>)[text] ?? text;
  if (!/[.:]/.test(address)) throw new Error(`There is no place "${text}"`);
  return address;
}

const placeNames: ReadonlyMap<string, string> = new Map<string, string>(
  Object.values(places).flatMap((of) =>
    Object.entries(of).map(([name, ip]) => [ip, name] as const),
  ),
);

/** A verdict with places instead of addresses, in the order of their names. */
function told(verdict: string): string {
  return inOrder(
    verdict.replaceAll(
      /(?:\[([^\]]+)\]|(\d+\.[\d.]+)):(?=\d)/g,
      (_, v6?: string, v4?: string) => `${placeNames.get(v6 ?? v4 ?? '') ?? v6 ?? v4}:`,
    ),
  );
}

function wanted([, , verdict]: Row, program: Program): string {
  return inOrder(typeof verdict === 'string' ? verdict : (verdict[program] ?? verdict.iptables));
}

function inOrder(verdict: string): string {
  return verdict.split(', ').toSorted().join(', ');
}

function written(rules: TracedRules): string {
  if (isIpvs(rules)) return writtenIpvs(rules);
  return 'tables' in rules ? renderSave(rules) : renderTable(rules);
}

/**
 * bgpd's configuration as `show running-config` prints it: lines in blocks. Lines of one block are a
 * set; FRR sorts them as it likes.
 */
import type { Family } from '#pkg/ip/address.ts';

export interface FrrLine {
  /** Where it stands: '' at the top, the first line of a block, or a name of {@link frrBlocks}. */
  readonly block: string;
  readonly text: string;
}

/** Blocks of the BGP instance of the default VRF; its other address families are "router …", too. */
export const frrBlocks = { router: 'router', ip: 'router ipv4', ip6: 'router ipv6' } as const;

export interface FrrConfig {
  readonly lines: readonly FrrLine[];
  /** The BGP instance of the default VRF. */
  readonly router:
    | { readonly asNumber: number; /** Its first line. */ readonly header: string }
    | undefined;
}

/** What a node has FRR say, in names that are only ours: `PODWIRE-…`. */
export interface FrrSpeaker {
  readonly asNumber: number;
  /** The BGP Identifier, where FRR speaks for us alone. */
  readonly routerId: string;
  /** Prefix lists and route maps. */
  readonly filters: readonly FrrLine[];
  readonly groups: readonly FrrGroup[];
  readonly neighbors: readonly FrrNeighbor[];
  readonly networks: readonly FrrNetwork[];
}

/** A peer group: what neighbours have in common. */
export interface FrrGroup {
  readonly name: string;
  readonly family: Family;
  /** Without the "neighbor NAME" in front. */
  readonly settings: readonly string[];
  /** The same of the address family. */
  readonly familySettings: readonly string[];
}

export interface FrrNeighbor {
  readonly address: string;
  /** Name of its group. */
  readonly group: string;
}

export interface FrrNetwork {
  readonly family: Family;
  readonly prefix: string;
  /** By what it is recognised as ours. */
  readonly routeMap: string;
}

/** All that `show running-config` printed, other people's lines too; comments left out. */
export function parseFrrConfig(text: string): FrrConfig {
  const lines: FrrLine[] = [];
  let router: FrrConfig['router'];
  let block = '';
  let inner: string | undefined;
  for (const raw of text.split('\n')) {
    const line = raw.trim();
    if (line === '' || line.startsWith('!')) continue;
    if (!raw.startsWith(' ')) {
      block = line;
      if (line === 'exit' || line === 'end') continue;
      lines.push({ block: '', text: line });
      const asNumber = asNumberOf(line);
      if (asNumber === undefined) continue;
      router = { asNumber, header: line };
      block = frrBlocks.router;
    } else if (line.startsWith('exit-')) {
      inner = undefined;
    } else if (block === frrBlocks.router && line.startsWith('address-family ')) {
      inner = familyBlocks[line] ?? `${frrBlocks.router} ${line}`;
    } else {
      lines.push({ block: inner ?? block, text: line });
    }
  }
  return { lines, router };
}

const familyBlocks: Readonly<Record<string, string>> = {
  'address-family ipv4 unicast': frrBlocks.ip,
  'address-family ipv6 unicast': frrBlocks.ip6,
};

/** Whether it stands in the BGP instance of the default VRF. */
export function isOfRouter({ block }: FrrLine): boolean {
  return /^router(?:$| ipv[46]$| address-family )/.test(block);
}

/** Of an instance in the default VRF; undefined for other lines. */
function asNumberOf(line: string): number | undefined {
  // "1.10" is FRR's other notation of 65546 (RFC 5396).
  const match = /^router bgp (?:(\d+)\.)?(\d+)(?: as-notation \S+)?$/.exec(line);
  return match === null ? undefined : Number(match[1] ?? 0) * 65_536 + Number(match[2]);
}

/** Questions to a tracer of rules and its answers, whichever packet filter the rules are for. */

/** The first packet of a connection. Addresses are canonical. */
export interface FirstPacket {
  readonly source: string;
  readonly destination: string;
  readonly protocol: 'tcp' | 'udp' | 'sctp';
  readonly port: number;
  readonly inInterface?: string;
}

/** What a tracer must know of the node besides its rules. */
export interface TraceHost {
  /** Canonical addresses of the node's interfaces; loopback is known. */
  readonly addresses: readonly string[];
}

/** One of the ways a packet can go: rules that choose at random make several. */
export interface Outcome {
  readonly verdict: 'accept' | 'drop' | 'reject';
  /** "ip:port" when the packet's destination was translated. */
  readonly endpoint: string | undefined;
  readonly masqueraded: boolean;
  /** Where, and the rule, for each that did something, in order. */
  readonly trail: readonly string[];
}

/** Whether an address is one of the node itself. */
export function localTo({ addresses }: TraceHost): (ip: string) => boolean {
  const own = new Set(addresses);
  return (ip) => own.has(ip) || ip === '::1' || ip.startsWith('127.');
}

/** One rule against one packet: does it match, and what does its target do. */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { tryParseAddress } from '#pkg/ip/address.ts';
import { containsAddress, tryParsePrefix } from '#pkg/ip/prefix.ts';
import { splitWords } from './rule.ts';

/** Whether a set holds what `flags` name of a packet: "dst,dst" is its destination and port there. */
export type InSet = (
  set: string,
  flags: readonly string[],
  packet: Pick<PacketState, 'destination' | 'port' | 'protocol' | 'source'>,
) => boolean;

/** A packet on its way. */
export interface PacketState {
  readonly source: string;
  readonly destination: string;
  readonly protocol: string;
  readonly port: number;
  readonly inInterface?: string;
  readonly state: string;
  readonly mark: number;
  readonly endpoint: string | undefined;
  readonly masqueraded: boolean;
  readonly verdict?: 'accept' | 'drop' | 'reject' | 'return' | undefined;
  readonly isLocal: (ip: string) => boolean;
  /** Undefined where rules match no sets. */
  readonly inSet: InSet | undefined;
  readonly trail: readonly string[];
}

export interface RuleResult {
  readonly state: PacketState;
  readonly matched: boolean;
  /** The chain the rule sends the packet to. */
  readonly jump?: string;
}

/** What the rule can do: one result, or two when it decides by chance. */
export function matchRule(rule: string, state: PacketState): RuleResult[] {
  const words = splitWords(rule);
  const reader = { words, at: 0 };
  const passed: RuleResult = { state, matched: false };
  let byChance = false;
  while (reader.at < words.length) {
    const negated = words[reader.at] === '!';
    if (negated) reader.at += 1;
    const name = take(reader);
    if (name === '-j') {
      const acted = applyTarget(words.slice(reader.at), state, rule);
      return byChance ? [acted, passed] : [acted];
    }
    const verdict = matchOption(name, reader, state);
    if (verdict === 'unknown') throw unknown(rule, name);
    if (verdict === 'chance') byChance = true;
    else if (verdict === negated) return [passed];
  }
  return [passed];
}

interface Reader {
  readonly words: readonly string[];
  at: number;
}

function take(reader: Reader): string {
  const word = reader.words[reader.at] ?? '';
  reader.at += 1;
  return word;
}

/** Options that only shape what another option says: taken with their value, always true. */
const silent: ReadonlySet<string> = new Set([
  '-m',
  '--comment',
  '--seconds',
  '--name',
  '--mask',
  '--mode',
]);
const silentFlags: ReadonlySet<string> = new Set(['--reap', '--rsource', '--set']);

function matchOption(
  name: string,
  reader: Reader,
  packet: PacketState,
): boolean | 'chance' | 'unknown' {
  if (silentFlags.has(name)) return true;
  // Nobody is in a recent list yet.
  if (name === '--rcheck') return false;
  if (silent.has(name)) {
    take(reader);
    return true;
  }
  const value = take(reader);
  switch (name) {
    case '-s':
      return inPrefix(value, packet.source);
    case '-d':
      return inPrefix(value, packet.destination);
    case '-i':
      return onInterface(value, packet.inInterface);
    case '-p':
      return value === packet.protocol;
    case '--dport':
      return Number(value) === packet.port;
    case '--ctstate':
      return value.split(',').some((s) => s === packet.state || isTranslated(s, packet));
    case '--dst-type':
      return value === 'LOCAL' ? packet.isLocal(packet.destination) : 'unknown';
    case '--src-type':
      return value === 'LOCAL' ? packet.isLocal(packet.source) : 'unknown';
    case '--mark': {
      const [mark = 0, mask = 0xffffffff] = value.split('/').map(Number);
      return (packet.mark & mask) >>> 0 === mark;
    }
    case '--match-set':
      return packet.inSet?.(value, take(reader).split(','), packet) ?? 'unknown';
    case '--probability':
      return 'chance';
    default:
      return 'unknown';
  }
}

function applyTarget(words: readonly string[], state: PacketState, rule: string): RuleResult {
  const [target = '', option, value = ''] = words;
  const end = (changes: Partial<PacketState>): RuleResult => ({
    state: { ...state, ...changes },
    matched: true,
  });
  switch (target) {
    case 'ACCEPT':
      return end({ verdict: 'accept' });
    case 'DROP':
      return end({ verdict: 'drop' });
    case 'REJECT':
      return end({ verdict: 'reject' });
    case 'RETURN':
      return end({ verdict: 'return' });
    case 'MASQUERADE':
      return end({ masqueraded: true, verdict: 'accept' });
    case 'MARK': {
      if (option !== '--set-xmark') throw unknown(rule, option ?? target);
      // xt_mark: clear the mask's bits, then xor the value.
      const [mark = 0, mask = 0xffffffff] = value.split('/').map(Number);
      return end({ mark: ((state.mark & ~mask) ^ mark) >>> 0 });
    }
    case 'DNAT': {
      const [, address, bare, port] = /^(?:\[(.+)\]|([^:]+)):(\d+)$/.exec(value) ?? [];
      const destination = address ?? bare;
      if (destination === undefined) throw unknown(rule, value);
      return end({ destination, port: Number(port), endpoint: value, verdict: 'accept' });
    }
    default:
      if (!/^[A-Z]+-/.test(target)) throw unknown(rule, target);
      return { state, matched: true, jump: target };
  }
}

function inPrefix(text: string, ip: string): boolean {
  const prefix = tryParsePrefix(text);
  const address = tryParseAddress(ip);
  return prefix !== undefined && address !== undefined && containsAddress(prefix, address);
}

function onInterface(pattern: string, name: string | undefined): boolean {
  if (name === undefined) return false;
  return pattern.endsWith('+') ? name.startsWith(pattern.slice(0, -1)) : name === pattern;
}

/** DNAT and SNAT are states of a connection beside NEW and ESTABLISHED. */
function isTranslated(ctstate: string, packet: PacketState): boolean {
  if (ctstate === 'DNAT') return packet.endpoint !== undefined;
  return ctstate === 'SNAT' && packet.masqueraded;
}

function unknown(rule: string, word: string): AgentError {
  return new AgentError('UnknownRule', `Cannot trace rule "${rule}": unknown word ${word}`);
}

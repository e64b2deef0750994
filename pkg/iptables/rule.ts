/**
 * One iptables rule as text, in the very form `iptables-save` prints it (1.8.x, both backends).
 * Since what we write and what we read back are the same text, comparing rules is comparing strings.
 */

/** Everything a rule of ours can say; `! ` in front of a value negates it. */
export interface RuleParts {
  /** "10.0.0.0/8", "! 10.0.0.0/8"; always with a mask length. */
  readonly source?: string;
  readonly destination?: string;
  readonly inInterface?: string;
  readonly protocol?: string;
  /** `-m` matches in evaluation order; see the functions below. */
  readonly matches?: readonly string[];
  /** "KUBE-SERVICES", "DROP", "DNAT --to-destination 10.0.0.1:80"; undefined only counts. */
  readonly target?: string;
}

/** The rule without its "-A CHAIN". iptables prints these options in this order. */
export function formatRule(rule: RuleParts): string {
  const words: string[] = [];
  if (rule.source !== undefined) words.push(option('-s', rule.source));
  if (rule.destination !== undefined) words.push(option('-d', rule.destination));
  if (rule.inInterface !== undefined) words.push(option('-i', rule.inInterface));
  if (rule.protocol !== undefined) words.push(option('-p', rule.protocol));
  words.push(...(rule.matches ?? []));
  if (rule.target !== undefined) words.push(`-j ${rule.target}`);
  return words.join(' ');
}

/** `-m comment`: quoted as iptables-save quotes, unless it is a plain word. */
export function comment(text: string): string {
  const plain = /^[A-Za-z0-9_-]+$/.test(text);
  return `-m comment --comment ${plain ? text : `"${text.replace(/["\\']/g, '\\$&')}"`}`;
}

/** `-m tcp --dport 80`; without a port the match is there for byte equality with kube-proxy. */
export function protocolMatch(protocol: string, destinationPort?: number): string {
  const port = destinationPort === undefined ? '' : ` --dport ${destinationPort}`;
  return `-m ${protocol}${port}`;
}

/**
 * `-m statistic` for one in `outOf` packets. The kernel keeps a probability as a 31-bit fraction
 * (xt_statistic.h), and iptables-save prints that fraction with eleven decimals. The ten decimals
 * are kube-proxy's, so that the kernel holds the same number.
 */
export function oneIn(outOf: number): string {
  const asKubeProxy = Number((1 / outOf).toFixed(10));
  const probability = Math.round(asKubeProxy * 2 ** 31) / 2 ** 31;
  return `-m statistic --mode random --probability ${probability.toFixed(11)}`;
}

/** The text of a rule's comment; undefined when it has none. */
export function commentOf(rule: string): string | undefined {
  const words = splitWords(rule);
  const at = words.indexOf('--comment');
  return at < 0 ? undefined : words[at + 1];
}

/** A rule's words, as a shell would split them: quoted ones without their quotes. */
export function splitWords(rule: string): string[] {
  return [...rule.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)].map(
    ([, quoted, plain]) => quoted?.replace(/\\(.)/g, '$1') ?? plain ?? '',
  );
}

function option(name: string, value: string): string {
  return value.startsWith('! ') ? `! ${name} ${value.slice(2)}` : `${name} ${value}`;
}

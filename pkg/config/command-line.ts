/**
 * Command lines as kube-proxy's flag library (spf13/pflag) reads them, which other libraries do not
 * quite: a flag that is true or false takes its value only after "=", and `-v=2` is 2.
 */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { nearestName } from './nearest-name.ts';

export interface FlagName {
  /** Without dashes: "proxy-mode". */
  readonly name: string;
  /** One letter: "v" of `-v=2`. */
  readonly shorthand?: string;
  /** Given without a value it is true. */
  readonly isBoolean: boolean;
}

/** A flag as given; a boolean one without a value is "true". */
export interface GivenFlag<F extends FlagName> {
  readonly flag: F;
  readonly value: string;
}

/**
 * The flags in their order; a flag may come more than once. Words take "_" for "-", as in kube-proxy.
 *
 * @throws {AgentError} WrongUsage for a flag nobody knows, one without its value, or another word
 */
export function parseCommandLine<F extends FlagName>(
  argv: readonly string[],
  flags: readonly F[],
): readonly GivenFlag<F>[] {
  const byName = new Map(flags.map((flag) => [flag.name, flag]));
  const byLetter = new Map(flags.map((flag) => [flag.shorthand ?? '', flag]));
  const given: GivenFlag<F>[] = [];
  const words = [...argv];
  for (let word = words.shift(); word !== undefined; word = words.shift()) {
    if (word === '--' && words.length === 0) break;
    const [, dashes = '', name = '', equals, text = ''] =
      /^(--?)([^=]*)(=)?([^]*)$/.exec(word) ?? [];
    if (dashes === '' || name === '') throw misunderstood(`unexpected word ${quote(word)}`);
    const letter = dashes === '-' ? (name[0] ?? '') : '';
    const flag = letter === '' ? byName.get(name.replaceAll('_', '-')) : byLetter.get(letter);
    if (flag === undefined) throw misunderstood(unknown(dashes, name, byName.keys()));
    // "-v2" is 2, as "-v=2".
    const attached = letter === '' ? '' : name.slice(1);
    if (attached !== '') given.push({ flag, value: attached + (equals ?? '') + text });
    else if (equals !== undefined) given.push({ flag, value: text });
    else if (flag.isBoolean) given.push({ flag, value: 'true' });
    else given.push({ flag, value: words.shift() ?? missing(word) });
  }
  return given;
}

function unknown(dashes: string, name: string, names: Iterable<string>): string {
  const nearest = dashes === '--' ? nearestName(name, [...names]) : undefined;
  const hint = nearest === undefined ? '' : `, did you mean --${nearest}?`;
  return `unknown flag ${dashes}${name}${hint}`;
}

function missing(word: string): never {
  throw misunderstood(`flag ${word} needs a value`);
}

function misunderstood(why: string): AgentError {
  return new AgentError('WrongUsage', `Cannot understand the command line: ${why}`);
}

function quote(word: string): string {
  return JSON.stringify(word);
}

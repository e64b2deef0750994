/**
 * CNI_ARGS: "KEY=value;KEY2=value2", the oldest way to hand a plugin something for one container.
 * The specification calls it deprecated; runtimes still send it, in random order.
 */
import { CniError, cniCode } from './cni-error.ts';

/**
 * The pairs a plugin knows. An unknown key is an error unless IgnoreUnknown=1 or true is among the
 * pairs, wherever it stands.
 *
 * @throws {CniError} code 4
 */
export function parseCniArgs<K extends string>(
  text: string,
  known: readonly K[],
): Readonly<Partial<Record<K, string>>> {
  const values: Partial<Record<K, string>> = {};
  const unknown: string[] = [];
  let ignoreUnknown = false;
  for (const pair of text === '' ? [] : text.split(';')) {
    const [key, value, ...rest] = pair.split('=');
    if (key === undefined || value === undefined || rest.length > 0) {
      throw invalid(`"${pair}" is not one KEY=value pair`);
    }
    if (key === 'IgnoreUnknown') ignoreUnknown = parseFlag(value);
    else if (isOneOf(key, known)) values[key] = value;
    else unknown.push(key);
  }
  if (unknown.length > 0 && !ignoreUnknown) {
    throw invalid(`unknown keys ${unknown.join(', ')}, and IgnoreUnknown=1 is not set`);
  }
  return values;
}

function isOneOf<K extends string>(key: string, known: readonly K[]): key is K {
  return known.some((k) => k === key);
}

function parseFlag(value: string): boolean {
  const flag = value.toLowerCase();
  if (flag === '1' || flag === 'true') return true;
  if (flag === '0' || flag === 'false') return false;
  throw invalid(`IgnoreUnknown is "${value}", expected 1, 0, true or false`);
}

function invalid(state: string): CniError {
  return new CniError(cniCode.invalidEnvironment, `Cannot read CNI_ARGS: ${state}`);
}

/** What every answer of a plugin must be, whatever it was asked. */
import type { CniAnswer } from '#pkg/cni/protocol.ts';
import { isCniVersion } from '#pkg/cni/versions.ts';
import type { FuzzCase } from './fuzz-cases.ts';

/** What is wrong with the answer; undefined when the specification allows it. */
export function problemOf(
  { environment }: FuzzCase,
  { exitCode, stdout, stderr }: Omit<CniAnswer, 'exitCode'> & { readonly exitCode: number | null },
): string | undefined {
  const command = environment['CNI_COMMAND'] ?? '';
  if (exitCode === 1) return errorProblem(stdout);
  if (exitCode !== 0) return `exit code ${exitCode}: ${stderr}`;
  switch (command) {
    case '':
      return stdout === '' && stderr.includes('CNI protocol versions supported')
        ? undefined
        : 'no word about itself';
    case 'ADD':
    case 'VERSION':
      return resultProblem(stdout);
    default:
      return stdout === '' ? undefined : `${command} printed ${stdout}`;
  }
}

function resultProblem(stdout: string): string | undefined {
  const document = parse(stdout);
  const version = document?.['cniVersion'];
  return typeof version === 'string' && isCniVersion(version) ? undefined : `no result: ${stdout}`;
}

function errorProblem(stdout: string): string | undefined {
  const { cniVersion, code, msg, details, ...others } = parse(stdout) ?? {};
  if (typeof cniVersion !== 'string' || !isCniVersion(cniVersion)) return `no error: ${stdout}`;
  if (!Number.isInteger(code) || Number(code) <= 0) return `an error without code: ${stdout}`;
  if (typeof msg !== 'string' || msg === '') return `an error without words: ${stdout}`;
  if (details !== undefined && typeof details !== 'string') return `odd details: ${stdout}`;
  if (Object.keys(others).length > 0) return `an error with more than that: ${stdout}`;
  return crash.test(msg) ? `a crash in words: ${stdout}` : undefined;
}

/** How V8 and JavaScriptCore tell of mistakes in the program. */
const crash =
  /Cannot read propert|Cannot destructure|Cannot convert (?:undefined|object|a )|Cannot mix|Invalid mix|is not a function|is not iterable|is not an object|is not defined|undefined is not|null is not|call stack|before initialization|Invalid array length|out of range|\[object |instanceof/i;

function parse(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? { ...value }
      : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Checks who imports whom (ARCHITECTURE.md, "Who may import whom"). The rules are what keeps
 * deciding apart from doing: a feature that could reach a socket one day would.
 */
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';

/** One file's import as the rules see it: a repository path, or a bare specifier. */
export interface Import {
  readonly from: string;
  readonly to: string;
  readonly typeOnly: boolean;
}

const features = ['pkg/proxy/', 'pkg/overlay/', 'pkg/pod-network/'];
const values = ['pkg/errors/', 'pkg/ip/'];
const pureNode = ['node:crypto', 'node:util'];
const vocabularies = ['host-network', 'nftables', 'iptables', 'ipvs', 'ipset', 'conntrack', 'frr'];
const effectful = /\/(?:observe|apply)(?:-[a-z-]+)?\.ts$/;
const decides = /\/(?:plan|render|ruleset|object|step)(?:-[a-z-]+)?\.ts$/;

/** A sentence for each import that breaks a rule; empty when all is well. */
export function importProblems(imports: readonly Import[]): string[] {
  return imports.flatMap((i) => {
    const problem = problemOf(i);
    return problem === undefined ? [] : [`${i.from} imports ${i.to}: ${problem}`];
  });
}

function problemOf({ from, to, typeOnly }: Import): string | undefined {
  if (to.startsWith('..')) return 'use #pkg/… across folders';
  if (isTest(from)) return undefined;
  if (isTest(to)) return 'production code may not import tests';
  const zone = /^(?:pkg|plugins|cmd|hack|test-e2e)\//.exec(to)?.[0];
  if (from.startsWith('pkg/') && zone !== undefined && zone !== 'pkg/') {
    return 'pkg/ may import pkg/ only';
  }
  if (
    from.startsWith('plugins/') &&
    (zone === 'cmd/' || zone === 'hack/' || zone === 'test-e2e/')
  ) {
    return 'plugins/ may import pkg/ only';
  }
  if (features.some((f) => from.startsWith(f))) return featureProblem({ from, to, typeOnly });
  const vocabulary = vocabularyOf(from);
  if (vocabulary !== undefined && decides.test(from))
    return pureProblem(to, [`pkg/${vocabulary}/`]);
  if (vocabulary !== undefined && effectful.test(from)) {
    const other = vocabularyOf(to);
    if (other !== undefined && other !== vocabulary) return 'a driver knows one vocabulary';
    if (features.some((f) => to.startsWith(f))) return 'a driver decides nothing: no features';
  }
  return undefined;
}

/** Features: nouns and values only, nothing that acts. */
function featureProblem({ to, typeOnly }: Import): string | undefined {
  const nouns = vocabularies.map((v) => `pkg/${v}/`);
  const problem = pureProblem(to, [...features, ...nouns, 'pkg/kube/types.ts']);
  if (problem !== undefined && typeOnly && to.startsWith('pkg/')) return undefined;
  return problem;
}

function pureProblem(to: string, alsoAllowed: readonly string[]): string | undefined {
  if (pureNode.includes(to)) return undefined;
  if (!to.startsWith('pkg/')) return 'pure code uses no library and no node: module';
  if (effectful.test(to)) return 'pure code may not import what acts';
  if ([...values, 'pkg/reconcile/parts.ts', ...alsoAllowed].some((p) => to.startsWith(p)))
    return undefined;
  return 'pure code may import values and nouns only';
}

function vocabularyOf(path: string): string | undefined {
  return vocabularies.find((v) => path.startsWith(`pkg/${v}/`));
}

function isTest(path: string): boolean {
  return (
    path.endsWith('.test.ts') || path.startsWith('test-e2e/') || /\/(?:testdata|scratch)/.test(path)
  );
}

const specifier =
  /^\s*(?:import|export)\s+(type\s)?[^;'"]*?\bfrom\s*['"]([^'"]+)['"]|^\s*import\s*['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]\s*\)/gm;

/** Every import in one file's text, `#pkg/…` and `./…` resolved to repository paths. */
export function importsOf(file: string, text: string): Import[] {
  return [...text.matchAll(specifier)].map((match) => {
    const to = match[2] ?? match[3] ?? match[4] ?? '';
    return { from: file, to: resolve(file, to), typeOnly: match[1] !== undefined };
  });
}

function resolve(file: string, to: string): string {
  if (to.startsWith('#test/')) return `test-e2e/harness/${to.slice('#test/'.length)}`;
  if (to.startsWith('#')) return to.slice(1);
  if (to.startsWith('./')) return normalize(join(dirname(file), to));
  return to;
}

if (import.meta.main) {
  const files = globSync('{cmd,pkg,plugins}/**/*.ts');
  const problems = importProblems(files.flatMap((f) => importsOf(f, readFileSync(f, 'utf8'))));
  for (const problem of problems) console.error(problem);
  console.error(`import rules: ${files.length} files, ${problems.length} problems`);
  process.exitCode = problems.length === 0 ? 0 : 1;
}

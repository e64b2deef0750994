/** Which tests run in the VM. */
import { globSync } from 'node:fs';
import { relative, resolve } from 'node:path';

export interface Suite {
  /** From the root of the repository. */
  readonly file: string;
  /** Only tests whose full name matches; undefined = all. */
  readonly only: RegExp | undefined;
}

/** Every file that needs the VM, and those parts of kernel tests that most kernels skip. */
const always: readonly (readonly [pattern: string, only?: RegExp])[] = [
  ['{cmd,hack,pkg,plugins,test-e2e}/**/*.vm.test.ts'],
  // Bridges that filter VLANs: by the numbers of the behaviours.
  ['cmd/podwire-cni/bridge-options.kernel.test.ts', /\b(?:49|50|51)\. /],
  // What it refuses is the same everywhere.
  ['cmd/podwire-cni/over-master.kernel.test.ts', /ipvlan .*modes l2/],
];

/** What user-mode Linux has no part of: WireGuard, nf_tables for IP. */
const emulatedOnly: ReadonlySet<string> = new Set([
  'cmd/podwire-node/backends.vm.test.ts',
  'cmd/podwire-proxy/mode-switch.vm.test.ts',
]);

/** Runs in each kind of machine: it is about the machine. */
const ofMachine = 'hack/vm/self.vm.test.ts';

/** All that needs a VM, in the machine that is the faster one for it. */
export function suitesByMachine(root: string): Record<'userMode' | 'emulated', readonly string[]> {
  const files = suitesOf(root, []).map(({ file }) => file);
  return {
    userMode: files.filter((file) => !emulatedOnly.has(file)),
    emulated: files.filter((file) => emulatedOnly.has(file) || file === ofMachine),
  };
}

/** @throws {TypeError} when the tests need what user-mode Linux lacks */
export function requireUserMode(suites: readonly Suite[]): void {
  const refused = suites.find(({ file }) => emulatedOnly.has(file));
  if (refused === undefined) return;
  throw new TypeError(
    `Cannot run ${refused.file} with --user-mode: its kernel has no WireGuard and no nf_tables for IP`,
  );
}

/**
 * The tests a command line names: by path or by folder; all that need the VM when it names none.
 *
 * @param quick of a file that is named, the part that needs the VM
 * @throws {TypeError} when a name finds nothing
 */
export function suitesOf(root: string, names: readonly string[], quick = false): Suite[] {
  const found = new Map<string, Suite>();
  const add = (pattern: string, only?: RegExp): number => {
    const files = globSync(pattern, { cwd: root });
    for (const file of files) found.set(file, { file, only });
    return files.length;
  };
  if (names.length === 0) for (const [pattern, only] of always) add(pattern, only);
  for (const name of names) {
    const path = relative(root, resolve(root, name));
    const count = path.endsWith('.test.ts')
      ? add(path, quick ? partOf(path) : undefined)
      : add(`${path}/**/*.{kernel,vm}.test.ts`) + add(`${path}*.{kernel,vm}.test.ts`);
    if (count === 0) throw new TypeError(`Cannot run ${name}: no test file of that name`);
  }
  return [...found.values()].toSorted((a, b) => (a.file < b.file ? -1 : 1));
}

/** The tests of a file that need the VM; undefined for all. */
function partOf(path: string): RegExp | undefined {
  return always.find(([pattern]) => pattern === path)?.[1];
}

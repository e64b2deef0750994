/** Which test files run in the VM. */
import { globSync } from 'node:fs';
import { relative, resolve } from 'node:path';

/** Every file that needs the VM, and kernel tests of which a part does. */
const always = [
  '{cmd,hack,pkg,plugins}/**/*.vm.test.ts',
  'cmd/podwire-cni/over-master.kernel.test.ts',
];

/**
 * The test files a command line names, from the root of the repository: by path or by folder; all
 * that need the VM when it names none.
 *
 * @throws {TypeError} when a name finds nothing
 */
export function testFiles(root: string, names: readonly string[]): string[] {
  const found = new Set<string>();
  const add = (pattern: string): number => {
    const files = globSync(pattern, { cwd: root });
    for (const file of files) found.add(file);
    return files.length;
  };
  for (const pattern of names.length === 0 ? always : []) add(pattern);
  for (const name of names) {
    const path = relative(root, resolve(root, name));
    const count = path.endsWith('.test.ts')
      ? add(path)
      : add(`${path}/**/*.{kernel,vm}.test.ts`) + add(`${path}*.{kernel,vm}.test.ts`);
    if (count === 0) throw new TypeError(`Cannot run ${name}: no test file of that name`);
  }
  return [...found].toSorted();
}

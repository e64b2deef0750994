import { defineConfig } from 'vitest/config';

/**
 * Limits only, which end what hangs on a machine that has other work, too: what a test waits for comes,
 * or it has failed.
 */
const isolated = {
  pool: 'forks',
  testTimeout: 240_000,
  hookTimeout: 240_000,
  expect: { poll: { timeout: 60_000, interval: 50 } },
} as const;

/**
 * A project for each kind of test (ARCHITECTURE.md, "Tests"): `unit` is pure and needs nothing;
 * `kernel-*` works in network namespaces it makes itself and needs root; `e2e-*` starts the built
 * programs on several nodes. Files that start daemons run one at a time: they share two cores, and
 * many of them look at what happens within seconds.
 */
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          // Half of the time went into loading the same modules for each file.
          isolate: false,
          // vitest leaves a processor to itself, which is half of what most machines here have.
          maxWorkers: 2,
          // A limit only: some of them start programs.
          testTimeout: 120_000,
          // Before the test's own limit, which does not say what was waited for.
          expect: { poll: { timeout: 60_000, interval: 20 } },
          include: [
            'pkg/**/*.test.ts',
            'plugins/**/*.test.ts',
            'cmd/**/*.test.ts',
            'hack/**/*.test.ts',
          ],
          exclude: ['**/*.kernel.test.ts', '**/*.vm.test.ts', 'node_modules/**'],
        },
      },
      {
        test: {
          // Two at a time: in namespaces of their own, and they mostly wait for other programs.
          name: 'kernel-parts',
          include: [
            'pkg/**/*.kernel.test.ts',
            'plugins/**/*.kernel.test.ts',
            'cmd/podwire-cni/*.kernel.test.ts',
          ],
          maxWorkers: 2,
          sequence: { groupOrder: 1 },
          ...isolated,
        },
      },
      {
        test: {
          name: 'kernel-programs',
          include: ['cmd/**/*.kernel.test.ts'],
          exclude: ['cmd/podwire-cni/**', 'node_modules/**'],
          fileParallelism: false,
          sequence: { groupOrder: 2 },
          ...isolated,
        },
      },
      {
        test: {
          // Runtimes, random input and random deaths: nothing in it is a matter of seconds.
          name: 'e2e-cni',
          sequence: { groupOrder: 3 },
          include: ['test-e2e/cni/*.test.ts'],
          exclude: ['**/*.vm.test.ts'],
          maxWorkers: 2,
          ...isolated,
          testTimeout: 900_000,
          hookTimeout: 900_000,
        },
      },
      {
        test: {
          name: 'e2e-daemons',
          sequence: { groupOrder: 4 },
          include: ['test-e2e/**/*.test.ts'],
          exclude: ['test-e2e/cni/**', '**/*.vm.test.ts'],
          fileParallelism: false,
          ...isolated,
        },
      },
    ],
  },
});

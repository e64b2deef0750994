import { defineConfig } from 'vitest/config';

/**
 * Three projects, one a kind of test (ARCHITECTURE.md, "Tests"): `unit` is pure and needs nothing;
 * `kernel` works in network namespaces it makes itself and needs root; `e2e` starts the built
 * programs on several nodes. Kernel and e2e files run one at a time: they share two cores and the
 * machine-wide list of namespaces.
 */
const isolated = { pool: 'forks', testTimeout: 60_000, hookTimeout: 60_000 } as const;

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          // Half of the time went into loading the same modules for each file.
          isolate: false,
          testTimeout: 20_000,
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
          name: 'kernel',
          include: [
            'pkg/**/*.kernel.test.ts',
            'plugins/**/*.kernel.test.ts',
            'cmd/**/*.kernel.test.ts',
          ],
          fileParallelism: false,
          ...isolated,
        },
      },
      {
        test: {
          name: 'e2e',
          include: ['test-e2e/**/*.test.ts'],
          fileParallelism: false,
          ...isolated,
          testTimeout: 240_000,
          hookTimeout: 240_000,
        },
      },
    ],
  },
});

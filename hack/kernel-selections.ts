/** Which kernel tests run beside which, as arguments for vitest. */

/** Tests that may run beside daemons: they wait for programs, and not only for seconds. */
const patient = {
  folders: ['cmd/podwire-cni/', 'test-e2e/cni/'],
  projects: ['kernel-parts', 'e2e-cni'],
} as const;

/** Of the projects in vitest.config.ts: those with daemons, and what of others is not patient. */
const daemons = ['kernel-parts', 'kernel-programs', 'e2e-daemons'] as const;

/** Together all kernel tests, none of them twice; the first have the machine before the second. */
export const selections = [
  [
    ...daemons.map((name) => `--project=${name}`),
    ...patient.folders.map((folder) => `--exclude=${folder}**`),
  ],
  [...patient.projects.map((name) => `--project=${name}`), ...patient.folders],
] as const;

/** Which kernel tests run beside which. */

/** Tests that may run beside daemons: they wait for programs, and not only for seconds. */
const patient = {
  folders: ['cmd/podwire-cni/', 'test-e2e/cni/'],
  projects: ['kernel-parts', 'e2e-cni'],
} as const;

/** Of the projects in vitest.config.ts: those with daemons, and what of others is not patient. */
const daemons = ['kernel-parts', 'kernel-programs', 'e2e-daemons'] as const;

/**
 * As arguments for vitest: together all kernel tests, none of them twice; the first have the machine
 * before the second.
 */
export const selections = [
  [
    ...daemons.map((name) => `--project=${name}`),
    ...patient.folders.map((folder) => `--exclude=${folder}**`),
  ],
  [...patient.projects.map((name) => `--project=${name}`), ...patient.folders],
] as const;

/** Of the files for the virtual machine, those that two of them run: each has one processor. */
export function machinesOf(files: readonly string[]): readonly (readonly string[])[] {
  const ofProxies = files.filter((file) => file.startsWith('cmd/podwire-proxy/'));
  return [ofProxies, files.filter((file) => !ofProxies.includes(file))];
}

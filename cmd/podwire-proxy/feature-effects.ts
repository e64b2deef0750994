/** What feature gates change in this proxy, and how they are told in metrics. */
import { featureGates, isFeatureEnabled } from '#pkg/config/feature-gates.ts';
import { projectService, type Project } from '#pkg/kube/project.ts';
import type { ServiceRecord } from '#pkg/kube/types.ts';
import type { AboutComponent } from '#pkg/metrics/component-metrics.ts';

type Gates = Readonly<Record<string, boolean>>;

/** How Services are read: without AllowServiceExternalIPs as if they had none (KEP-5707). */
export function serviceProjection(gates: Gates): Project<ServiceRecord> {
  if (isFeatureEnabled(gates, 'AllowServiceExternalIPs')) return projectService;
  return (raw, intern) => {
    const record = projectService(raw, intern);
    return record === undefined ? undefined : { ...record, externalIPs: [] };
  };
}

export function aboutComponent(version: string, gates: Gates): AboutComponent {
  const arch = process.arch === 'x64' ? 'amd64' : process.arch;
  return {
    version,
    platform: `${process.platform}/${arch}`,
    nodeVersion: process.version,
    featureGates: Object.entries(featureGates).map(([name, { stage }]) => ({
      name,
      stage,
      enabled: isFeatureEnabled(gates, name),
    })),
  };
}

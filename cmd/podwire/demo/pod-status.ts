/** The status a kubelet reports of a pod that runs, as the EndpointSlice controller and kubectl read it. */
import type { PodRecord } from './pod-record.ts';

export interface RunningPod {
  /** Without prefix length; the pod's first address first. */
  readonly podIPs: readonly string[];
  readonly hostIPs: readonly string[];
  readonly containerId: string;
  /** RFC 3339, whole seconds. */
  readonly startedAt: string;
}

export function runningStatus(pod: PodRecord, running: RunningPod): object {
  const { podIPs, hostIPs, containerId, startedAt } = running;
  const conditions = ['PodScheduled', 'Initialized', 'ContainersReady', 'Ready'];
  return {
    phase: 'Running',
    startTime: startedAt,
    podIP: podIPs[0],
    podIPs: podIPs.map((ip) => ({ ip })),
    hostIP: hostIPs[0],
    hostIPs: hostIPs.map((ip) => ({ ip })),
    conditions: conditions.map((type) => ({ type, status: 'True', lastTransitionTime: startedAt })),
    containerStatuses: pod.containers.map(({ name, image }) => ({
      name,
      image,
      imageID: '',
      containerID: `podwire-demo://${containerId}`,
      ready: true,
      started: true,
      restartCount: 0,
      state: { running: { startedAt } },
    })),
  };
}

/** RFC 3339 without fractions: how metav1.Time is written. */
export function apiTime(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z');
}

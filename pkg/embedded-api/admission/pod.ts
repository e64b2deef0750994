/** Pods: defaults, schema, and that only little of a spec may change (core/v1). */
import * as z from 'zod';
import type { FieldError } from '#pkg/embedded-api/api-error.ts';
import {
  isJsonObject,
  listAt,
  objectAt,
  sameJson,
  textAt,
  without,
  type JsonObject,
} from '#pkg/embedded-api/json.ts';
import type { KindRules } from '#pkg/embedded-api/kind-rules.ts';
import type { KubeObject } from '#pkg/embedded-api/object.ts';
import { eachObject, withAbsent } from './defaults.ts';
import { forbiddenField } from './field-errors.ts';
import { schemaErrors } from './schema-check.ts';
import {
  dnsLabel,
  dnsSubdomain,
  ipAddress,
  objectMeta,
  portName,
  portNumber,
  protocol,
} from './schema-parts.ts';

const container = z.looseObject({
  name: dnsLabel,
  image: z.string().optional(),
  command: z.array(z.string()).optional(),
  args: z.array(z.string()).optional(),
  env: z.array(z.looseObject({ name: z.string().min(1), value: z.string().optional() })).optional(),
  ports: z
    .array(
      z.looseObject({
        name: portName.optional(),
        containerPort: portNumber,
        hostPort: z.int().min(0).max(65535).optional(),
        hostIP: z.string().optional(),
        protocol,
      }),
    )
    .optional(),
});

const podIP = z.looseObject({ ip: ipAddress });
const noContainers = 'must have at least one container';

/** `v1.Pod`, as far as a network agent reads it; the rest is kept as it came. */
export const podSchema = z.looseObject({
  metadata: objectMeta.extend({ name: dnsSubdomain }),
  spec: z
    .looseObject({
      containers: z.array(container).min(1, noContainers),
      initContainers: z.array(container).optional(),
      nodeName: dnsSubdomain.optional(),
      hostNetwork: z.boolean().optional(),
      hostname: dnsLabel.optional(),
      subdomain: dnsLabel.optional(),
      restartPolicy: z.enum(['Always', 'Never', 'OnFailure']),
      terminationGracePeriodSeconds: z.int().min(0).optional(),
      tolerations: z.array(z.looseObject({})).optional(),
    })
    .superRefine((spec, issues) => {
      const names = new Set<string>();
      for (const [i, item] of spec.containers.entries()) {
        if (names.has(item.name)) {
          const path = ['containers', i, 'name'];
          issues.addIssue({ code: 'custom', path, message: '', params: { duplicate: true } });
        }
        names.add(item.name);
      }
    }),
  status: z
    .looseObject({
      phase: z.enum(['Failed', 'Pending', 'Running', 'Succeeded', 'Unknown']).optional(),
      podIP: z.union([z.literal(''), ipAddress]).optional(),
      podIPs: z
        .array(podIP)
        .max(2, 'may specify no more than one IP for each IP family')
        .optional(),
      hostIP: z.union([z.literal(''), ipAddress]).optional(),
      conditions: z
        .array(z.looseObject({ type: z.string(), status: z.enum(['False', 'True', 'Unknown']) }))
        .optional(),
    })
    .optional(),
});

export const podRules: KindRules = {
  withDefaults: withPodDefaults,
  validate: (pod, old) => {
    const errors = schemaErrors(podSchema, pod);
    return errors.length > 0 || old === undefined ? errors : changeErrors(pod, old);
  },
};

function withPodDefaults(pod: KubeObject, old: KubeObject | undefined): KubeObject {
  const spec = isJsonObject(pod['spec']) ? pod['spec'] : {};
  const isHostNetwork = spec['hostNetwork'] === true;
  const containers = (key: string): JsonObject =>
    spec[key] === undefined
      ? {}
      : {
          [key]: eachObject(listAt(spec, key), (item) =>
            withContainerDefaults(item, isHostNetwork),
          ),
        };
  const filled = withAbsent(spec, {
    restartPolicy: 'Always',
    terminationGracePeriodSeconds: 30,
    dnsPolicy: 'ClusterFirst',
    securityContext: {},
    schedulerName: 'default-scheduler',
    enableServiceLinks: true,
  });
  const status = withAddressPair(
    old === undefined
      ? withAbsent(objectAt(pod, 'status'), { phase: 'Pending', qosClass: qosClass(spec) })
      : objectAt(pod, 'status'),
  );
  return {
    ...pod,
    spec: { ...filled, ...containers('containers'), ...containers('initContainers') },
    status,
  };
}

function withContainerDefaults(container_: JsonObject, isHostNetwork: boolean): JsonObject {
  const image = textAt(container_, 'image');
  const isLatest = image.endsWith(':latest') || !/[:@][^/]*$/.test(image);
  const filled = withAbsent(container_, {
    imagePullPolicy: isLatest ? 'Always' : 'IfNotPresent',
    resources: {},
    terminationMessagePath: '/dev/termination-log',
    terminationMessagePolicy: 'File',
  });
  if (container_['ports'] === undefined) return filled;
  const ports = eachObject(listAt(container_, 'ports'), (port) =>
    withAbsent(port, {
      protocol: 'TCP',
      hostPort: isHostNetwork ? port['containerPort'] : undefined,
    }),
  );
  return { ...filled, ports };
}

/** `podIP` and `podIPs[0]` say the same; whoever writes the status may give either. */
function withAddressPair(status: JsonObject): JsonObject {
  const single = textAt(status, 'podIP');
  const list = listAt(status, 'podIPs');
  if (list.length === 0) return single === '' ? status : { ...status, podIPs: [{ ip: single }] };
  return { ...status, podIP: textAt(list[0], 'ip') };
}

/** Quality of service: guaranteed only when every container limits what it requests. */
function qosClass(spec: JsonObject): string {
  const resources = [...listAt(spec, 'containers'), ...listAt(spec, 'initContainers')].map((item) =>
    objectAt(item, 'resources'),
  );
  const isEmpty = (item: JsonObject): boolean =>
    Object.keys(objectAt(item, 'requests')).length +
      Object.keys(objectAt(item, 'limits')).length ===
    0;
  if (resources.every(isEmpty)) return 'BestEffort';
  const isGuaranteed = resources.every((item) => {
    const limits = objectAt(item, 'limits');
    const requests = item['requests'] ?? limits;
    return (
      ['cpu', 'memory'].every((key) => limits[key] !== undefined) && sameJson(requests, limits)
    );
  });
  return isGuaranteed ? 'Guaranteed' : 'Burstable';
}

const changeable = ['activeDeadlineSeconds', 'terminationGracePeriodSeconds', 'tolerations'];

function changeErrors(pod: KubeObject, old: KubeObject): readonly FieldError[] {
  const fixed = (object: KubeObject): JsonObject => {
    const spec = without(objectAt(object, 'spec'), ...changeable);
    const images = (key: string): JsonObject =>
      spec[key] === undefined
        ? {}
        : { [key]: eachObject(listAt(spec, key), (item) => without(item, 'image')) };
    return { ...spec, ...images('containers'), ...images('initContainers') };
  };
  const before = fixed(old);
  // There is no scheduler here: whoever plays one sets nodeName, once.
  const was = textAt(before, 'nodeName') === '' ? without(before, 'nodeName') : before;
  const now = textAt(before, 'nodeName') === '' ? without(fixed(pod), 'nodeName') : fixed(pod);
  if (sameJson(was, now)) return [];
  const fields =
    'pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds`';
  return [forbiddenField('spec', fields)];
}

/** Columns of `kubectl get` for the built-in kinds, as kube-apiserver's printers name them. */
import { listAt, objectAt, textAt, textMapAt, textsAt, valueAt, type Json } from './json.ts';
import type { KubeObject } from './object.ts';
import { age, type Column } from './table.ts';

type Cell = (object: KubeObject, nowMs: number) => Json;

function text(name: string, value: Cell): Column {
  return { name, type: 'string', priority: 0, value };
}

function wide(name: string, value: Cell): Column {
  return { name, type: 'string', priority: 1, value };
}

const orNone = (value: string): string => value || '<none>';

export const namespaceColumns: readonly Column[] = [
  text('Status', (object) => textAt(object, 'status', 'phase')),
];

export const nodeColumns: readonly Column[] = [
  text('Status', nodeStatus),
  text('Roles', nodeRoles),
  { ...ageCell('Age') },
  text('Version', (object) => textAt(object, 'status', 'nodeInfo', 'kubeletVersion')),
  wide('Internal-IP', (object) => orNone(nodeAddress(object, 'InternalIP'))),
  wide('External-IP', (object) => orNone(nodeAddress(object, 'ExternalIP'))),
  wide('Pod-CIDRs', (object) => orNone(textsAt(object, 'spec', 'podCIDRs').join(','))),
];

export const podColumns: readonly Column[] = [
  text('Ready', (object) => {
    const containers = listAt(object, 'spec', 'containers').length;
    const ready = listAt(object, 'status', 'containerStatuses');
    return `${ready.filter((status) => valueAt(status, 'ready') === true).length}/${containers}`;
  }),
  text('Status', (object) =>
    object.metadata.deletionTimestamp === undefined
      ? textAt(object, 'status', 'reason') || textAt(object, 'status', 'phase')
      : 'Terminating',
  ),
  text('Restarts', (object) => {
    const counts = listAt(object, 'status', 'containerStatuses');
    return String(
      counts.reduce((sum: number, status) => sum + Number(valueAt(status, 'restartCount') ?? 0), 0),
    );
  }),
  ageCell('Age'),
  wide('IP', (object) => {
    const addresses = listAt(object, 'status', 'podIPs').map((entry) => textAt(entry, 'ip'));
    return orNone(addresses.join(','));
  }),
  wide('Node', (object) => orNone(textAt(object, 'spec', 'nodeName'))),
];

export const serviceColumns: readonly Column[] = [
  text('Type', (object) => textAt(object, 'spec', 'type')),
  text('Cluster-IP', (object) => orNone(textsAt(object, 'spec', 'clusterIPs').join(','))),
  text('External-IP', serviceExternalIP),
  text('Port(s)', servicePorts),
  ageCell('Age'),
  wide('Selector', (object) => orNone(pairs(textMapAt(object, 'spec', 'selector')))),
];

export const endpointSliceColumns: readonly Column[] = [
  text('AddressType', (object) => textAt(object, 'addressType')),
  text('Ports', (object) => {
    const ports = listAt(object, 'ports').map((port) => textAt(port, 'port') || '*');
    return ports.length === 0 ? '<unset>' : firstFew(ports);
  }),
  text('Endpoints', (object) => {
    const addresses = listAt(object, 'endpoints').flatMap((endpoint) =>
      listAt(endpoint, 'addresses'),
    );
    return addresses.length === 0
      ? '<unset>'
      : firstFew(addresses.map((address) => textAt(address)));
  }),
];

export const networkPolicyColumns: readonly Column[] = [
  text('Pod-Selector', (object) => {
    const selector = objectAt(object, 'spec', 'podSelector');
    const expressions = listAt(selector, 'matchExpressions').map(
      (item) =>
        `${textAt(item, 'key')} ${textAt(item, 'operator').toLowerCase()} (${textsAt(item, 'values').join(',')})`,
    );
    const labels = pairs(textMapAt(selector, 'matchLabels'));
    return orNone([...(labels === '' ? [] : [labels]), ...expressions].join(','));
  }),
];

export const eventColumns: readonly Column[] = [
  {
    ...text('Last Seen', (object, nowMs) => {
      const seen =
        textAt(object, 'lastTimestamp') ||
        textAt(object, 'eventTime') ||
        object.metadata.creationTimestamp;
      return age(Date.parse(seen), nowMs);
    }),
  },
  text('Type', (object) => textAt(object, 'type')),
  text('Reason', (object) => textAt(object, 'reason')),
  text('Object', (object) => {
    const about = objectAt(object, 'involvedObject');
    return `${textAt(about, 'kind').toLowerCase()}/${textAt(about, 'name')}`;
  }),
  text('Message', (object) => textAt(object, 'message').trim()),
];

export const leaseColumns: readonly Column[] = [
  text('Holder', (object) => textAt(object, 'spec', 'holderIdentity')),
];

export const configMapColumns: readonly Column[] = [
  text('Data', (object) => {
    const keys = [
      ...Object.keys(objectAt(object, 'data')),
      ...Object.keys(objectAt(object, 'binaryData')),
    ];
    return String(keys.length);
  }),
];

export const serviceCidrColumns: readonly Column[] = [
  text('CIDRs', (object) => textsAt(object, 'spec', 'cidrs').join(',')),
];

export const definitionColumns: readonly Column[] = [
  { ...text('Created At', (object) => object.metadata.creationTimestamp) },
];

function ageCell(name: string): Column {
  return text(name, (object, nowMs) => age(Date.parse(object.metadata.creationTimestamp), nowMs));
}

function nodeStatus(node: KubeObject): string {
  const conditions = listAt(node, 'status', 'conditions');
  const ready = conditions.find((condition) => textAt(condition, 'type') === 'Ready');
  const word =
    ready === undefined ? 'Unknown' : textAt(ready, 'status') === 'True' ? 'Ready' : 'NotReady';
  return valueAt(node, 'spec', 'unschedulable') === true ? `${word},SchedulingDisabled` : word;
}

function nodeRoles(node: KubeObject): string {
  const prefix = 'node-role.kubernetes.io/';
  const roles = Object.keys(node.metadata.labels ?? {}).filter((key) => key.startsWith(prefix));
  return orNone(
    roles
      .map((key) => key.slice(prefix.length))
      .toSorted()
      .join(','),
  );
}

function nodeAddress(node: KubeObject, type: string): string {
  const found = listAt(node, 'status', 'addresses').filter(
    (entry) => textAt(entry, 'type') === type,
  );
  return found.map((entry) => textAt(entry, 'address')).join(',');
}

function serviceExternalIP(service: KubeObject): string {
  const type = textAt(service, 'spec', 'type');
  if (type === 'ExternalName') return orNone(textAt(service, 'spec', 'externalName'));
  const given = listAt(service, 'spec', 'externalIPs').map((address) => textAt(address));
  const ingress = listAt(service, 'status', 'loadBalancer', 'ingress').map(
    (entry) => textAt(entry, 'ip') || textAt(entry, 'hostname'),
  );
  const all = [...(type === 'LoadBalancer' ? ingress : []), ...given];
  return all.length === 0 && type === 'LoadBalancer' ? '<pending>' : orNone(all.join(','));
}

function servicePorts(service: KubeObject): string {
  const ports = listAt(service, 'spec', 'ports').map((port) => {
    const nodePort = textAt(port, 'nodePort');
    const node = nodePort === '' || nodePort === '0' ? '' : `:${nodePort}`;
    return `${textAt(port, 'port')}${node}/${textAt(port, 'protocol')}`;
  });
  return orNone(ports.join(','));
}

function pairs(labels: Readonly<Record<string, string>>): string {
  return Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .toSorted()
    .join(',');
}

function firstFew(items: readonly string[]): string {
  const shown = items.slice(0, 3).join(',');
  return items.length > 3 ? `${shown} + ${items.length - 3} more...` : shown;
}

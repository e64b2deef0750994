/**
 * The ipsets of ipvs mode: kube-proxy's own, and three more that say what becomes of traffic that no
 * endpoint may take. Rules match sets, so that they are the same whatever the Services are.
 */
import type { Family } from '#pkg/ip/address.ts';
import type { IpSetKind, IpSetType } from '#pkg/ipset/ip-set.ts';

const types = {
  'LOOP-BACK': 'hash:ip,port,ip',
  'CLUSTER-IP': 'hash:ip,port',
  'EXTERNAL-IP': 'hash:ip,port',
  'EXTERNAL-IP-LOCAL': 'hash:ip,port',
  'LOAD-BALANCER': 'hash:ip,port',
  'LOAD-BALANCER-LOCAL': 'hash:ip,port',
  'LOAD-BALANCER-FW': 'hash:ip,port',
  'LOAD-BALANCER-SOURCE-IP': 'hash:ip,port,ip',
  'LOAD-BALANCER-SOURCE-CIDR': 'hash:ip,port,net',
  'NODE-PORT-TCP': 'bitmap:port',
  'NODE-PORT-LOCAL-TCP': 'bitmap:port',
  'NODE-PORT-UDP': 'bitmap:port',
  'NODE-PORT-LOCAL-UDP': 'bitmap:port',
  'NODE-PORT-SCTP-HASH': 'hash:ip,port',
  'NODE-PORT-LOCAL-SCTP-HASH': 'hash:ip,port',
  'HEALTH-CHECK-NODE-PORT': 'bitmap:port',
  'IPVS-IPS': 'hash:ip',
  /** Nobody there, anywhere: refused. */
  'NO-ENDPOINT': 'hash:ip,port',
  /** internalTrafficPolicy Local, and nobody on this node: dropped. */
  'NO-LOCAL-IP': 'hash:ip,port',
  /** externalTrafficPolicy Local, and nobody on this node: dropped from outside. */
  'NO-LOCAL-EXTERNAL': 'hash:ip,port',
} as const satisfies Readonly<Record<string, IpSetType>>;

export type SetId = keyof typeof types;

const setIds = Object.keys(types) as SetId[];

/** As kube-proxy names them: "KUBE-CLUSTER-IP", "KUBE-6-CLUSTER-IP", cut to what the kernel takes. */
export function setName(id: SetId, family: Family): string {
  return `KUBE-${family === 'ip6' ? '6-' : ''}${id}`.slice(0, 31);
}

/** Every set of a family: rules name all of them, so all are there, empty or not. */
export function ipvsSets(family: Family): readonly IpSetKind[] {
  return setIds.map((id): IpSetKind => {
    const type = types[id];
    return { name: setName(id, family), type, family: type === 'bitmap:port' ? undefined : family };
  });
}

/** One Service of each kind. `six-services.txt` is what iptables-save shows for them. */
import { local, p80, service, slice, type Cluster } from './records.ts';

export const sixServices: Cluster = {
  services: [
    service('ns1/svc1', { clusterIPs: ['172.30.0.41'] }),
    service('ns2/svc2', {
      type: 'LoadBalancer',
      clusterIPs: ['172.30.0.42'],
      ports: p80(3001),
      externalIPs: ['192.168.99.22'],
      loadBalancerIngress: [{ ip: '1.2.3.4', ipMode: 'VIP' }],
      externalTrafficPolicy: 'Local',
      healthCheckNodePort: 30000,
    }),
    service('ns3/svc3', {
      type: 'NodePort',
      clusterIPs: ['172.30.0.43'],
      ports: p80(3003),
    }),
    service('ns4/svc4', { clusterIPs: ['172.30.0.44'], externalIPs: ['192.168.99.33'] }),
    service('ns5/svc5', {
      type: 'LoadBalancer',
      clusterIPs: ['172.30.0.45'],
      ports: p80(3002),
      loadBalancerIngress: [{ ip: '5.6.7.8', ipMode: 'VIP' }],
      loadBalancerSourceRanges: [' 203.0.113.0/25'],
      affinitySeconds: 10800,
      // Without externalTrafficPolicy Local it means nothing.
      healthCheckNodePort: 30000,
    }),
    service('ns6/svc6', { clusterIPs: ['172.30.0.46'] }),
  ],
  slices: [
    slice('ns1/svc1', ['10.180.0.1']),
    slice('ns2/svc2', ['10.180.0.2']),
    slice('ns3/svc3', ['10.180.0.3']),
    slice('ns4/svc4', ['10.180.0.4', local('10.180.0.5')]),
    slice('ns5/svc5', ['10.180.0.3']),
  ],
};

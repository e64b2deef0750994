/** The 40 Services as the API serves them: one of every kind, and the odd ones. */

const local = { nodeName: 'this-node' };
const ending = { conditions: { ready: false, serving: true, terminating: true } };
const dead = { conditions: { ready: false, serving: false, terminating: true } };
const unready = { conditions: { ready: false, serving: false, terminating: false } };

const services = [];
const slices = [];
let count = 0;

/** `endpoints` by the number of a pod; their addresses are 10.180.<count>.<pod> and fd00:10::<count>:<pod>. */
function add(name, { ports = [{ port: 80 }], endpoints = {}, ingress, ...spec } = {}) {
  count += 1;
  const [namespace, short] = name.split('/');
  const families = spec.ipFamilies ?? ['IPv4'];
  const addresses = families.map((f) => (f === 'IPv4' ? `172.30.0.${count}` : `fd00:96::${count}`));
  const named = ports.map(({ name: portName = 'p80', protocol = 'TCP', port, nodePort: number }) => ({
    name: portName,
    protocol,
    port,
    ...(number === undefined ? {} : { nodePort: number }),
  }));
  services.push({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { namespace, name: short },
    spec: {
      type: 'ClusterIP',
      clusterIP: addresses[0],
      clusterIPs: addresses,
      ipFamilies: families,
      ports: named,
      internalTrafficPolicy: 'Cluster',
      sessionAffinity: 'None',
      ...spec,
    },
    status: { loadBalancer: ingress === undefined ? {} : { ingress } },
  });
  for (const family of families) {
    const address = (pod) => (family === 'IPv4' ? `10.180.${count}.${pod}` : `fd00:10::${count}:${pod}`);
    slices.push({
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: {
        namespace,
        name: `${short.slice(0, 40)}-${family.toLowerCase()}`,
        labels: { 'kubernetes.io/service-name': short },
      },
      addressType: family,
      ports: named.map(({ name: portName, protocol, port }, i) => ({
        name: portName,
        protocol,
        port: ports[i].target ?? port,
      })),
      endpoints: Object.entries(endpoints).map(([pod, state]) => ({
        addresses: [address(pod)],
        nodeName: 'other-node',
        ...state,
      })),
    });
  }
}

const far = { 1: {} };
const mixed = { 1: {}, 2: local };
const external = { externalTrafficPolicy: 'Cluster' };
const externalLocal = { externalTrafficPolicy: 'Local' };
const nodePort = { ...external, type: 'NodePort' };
const balancer = { ...external, type: 'LoadBalancer' };
const sticky = (timeoutSeconds) => ({
  sessionAffinity: 'ClientIP',
  sessionAffinityConfig: { clientIP: { timeoutSeconds } },
});

// Endpoints in every state.
add('ns1/one', { endpoints: far });
add('ns1/several', { endpoints: { 30: {}, 4: {}, 11: local, 2: {} } });
add('ns1/none');
add('ns1/unready', { endpoints: { 1: unready, 2: dead } });
add('ns1/ending', { endpoints: { 1: unready, 2: ending, 3: { ...local, ...ending }, 4: dead } });
add('ns1/ready-and-ending', { endpoints: { 1: ending, 2: {} } });
// Ports of every kind.
add('ns1/unnamed', { ports: [{ name: '', port: 8080 }], endpoints: far });
add('ns1/many-ports', {
  ports: [{ name: 'https', port: 443, target: 8443 }, { name: 'http', port: 80, target: 8080 }, { name: 'metrics', port: 9090 }],
  endpoints: { 1: {}, 2: {} },
});
add('kube-system/kube-dns', {
  ports: [{ name: 'dns', protocol: 'UDP', port: 53 }, { name: 'dns-tcp', port: 53 }],
  endpoints: far,
});
add('ns1/sctp', { ports: [{ name: 'sig', protocol: 'SCTP', port: 3868 }], endpoints: far });
add('ns1/two-targets', { endpoints: far });
slices.push({
  ...slices.at(-1),
  metadata: { ...slices.at(-1).metadata, name: 'two-targets-b' },
  ports: [{ name: 'p80', protocol: 'TCP', port: 8080 }],
  endpoints: [{ addresses: [`10.180.${count}.9`], nodeName: 'other-node' }],
});
// Affinity.
add('ns1/sticky', { ...sticky(10800), endpoints: { 1: {}, 2: {} } });
add('ns1/sticky-local', { ...sticky(60), internalTrafficPolicy: 'Local', endpoints: mixed });
// The internal policy.
add('ns1/internal-local', { internalTrafficPolicy: 'Local', endpoints: mixed });
add('ns1/internal-local-far', { internalTrafficPolicy: 'Local', endpoints: far });
add('ns1/internal-local-ending', {
  internalTrafficPolicy: 'Local',
  endpoints: { 1: {}, 2: { ...local, ...ending } },
});
// None of the proxy's business.
add('ns1/headless', { clusterIP: 'None', clusterIPs: ['None'], endpoints: far });
add('ns1/external-name', { type: 'ExternalName', externalName: 'example.com', endpoints: far });
// Node ports.
add('ns1/node-port', { ...nodePort, ports: [{ port: 80, nodePort: 30021 }], endpoints: mixed });
add('ns1/node-port-udp', {
  ...nodePort,
  ports: [{ protocol: 'UDP', port: 80, nodePort: 30021 }],
  endpoints: far,
});
add('ns1/node-port-none', { ...nodePort, ports: [{ port: 80, nodePort: 30023 }] });
add('ns1/node-port-local', {
  ...nodePort,
  ...externalLocal,
  ports: [{ port: 80, nodePort: 30024 }],
  endpoints: mixed,
});
add('ns1/node-port-local-far', {
  ...nodePort,
  ...externalLocal,
  ports: [{ port: 80, nodePort: 30025 }],
  endpoints: far,
});
// External addresses.
add('ns1/external', { ...external, externalIPs: ['192.168.99.26', '2001:db8:99::26'], endpoints: far });
add('ns1/external-local', {
  ...externalLocal,
  externalIPs: ['192.168.99.27', '192.168.99.28'],
  endpoints: { 1: {} },
});
// Load balancers.
add('lb/ranges', {
  ...balancer,
  ports: [{ port: 80, nodePort: 30031 }],
  ingress: [{ ip: '1.2.3.31', ipMode: 'VIP' }, { ip: '1.2.3.131' }],
  loadBalancerSourceRanges: ['203.0.113.0/25', '198.51.100.9/32'],
  endpoints: mixed,
});
add('lb/ranges-with-node', {
  ...balancer,
  ...externalLocal,
  ports: [{ port: 80, nodePort: 30032 }],
  ingress: [{ ip: '1.2.3.32' }],
  loadBalancerSourceRanges: [' 203.0.113.0/25', '192.168.0.77/24 '],
  healthCheckNodePort: 31032,
  endpoints: mixed,
});
add('lb/ranges-of-all', {
  ...balancer,
  ports: [{ port: 80, nodePort: 30033 }],
  ingress: [{ ip: '1.2.3.33' }],
  loadBalancerSourceRanges: ['203.0.113.0/25', '0.0.0.0/0'],
  endpoints: far,
});
add('lb/ranges-of-ipv6', {
  ...balancer,
  ports: [{ port: 80 }],
  allocateLoadBalancerNodePorts: false,
  ingress: [{ ip: '1.2.3.34' }],
  loadBalancerSourceRanges: ['2001:db8::/64'],
  endpoints: far,
});
add('lb/local', {
  ...balancer,
  ...externalLocal,
  ports: [{ port: 80, nodePort: 30035 }],
  ingress: [{ ip: '1.2.3.35' }],
  healthCheckNodePort: 31035,
  endpoints: { 1: {}, 2: { ...local, ...ending } },
});
add('lb/local-far', {
  ...balancer,
  ...externalLocal,
  ports: [{ port: 80, nodePort: 30036 }],
  externalIPs: ['192.168.99.36'],
  ingress: [{ ip: '1.2.3.36' }],
  loadBalancerSourceRanges: ['203.0.113.0/25'],
  healthCheckNodePort: 31036,
  endpoints: far,
});
add('lb/proxy-mode', {
  ...balancer,
  ports: [{ port: 80, nodePort: 30037 }],
  ingress: [{ ip: '1.2.3.37', ipMode: 'Proxy' }, { ip: '1.2.3.137', ipMode: 'VIP' }, { hostname: 'lb.example.com' }],
  // It means nothing under policy Cluster.
  healthCheckNodePort: 31037,
  endpoints: far,
});
add('lb/none', {
  ...balancer,
  ...externalLocal,
  ports: [{ port: 80, nodePort: 30038 }],
  externalIPs: ['192.168.99.38'],
  ingress: [{ ip: '1.2.3.38' }],
  loadBalancerSourceRanges: ['203.0.113.0/25'],
  healthCheckNodePort: 31038,
});
// Both families.
const dual = { ipFamilies: ['IPv4', 'IPv6'] };
add('dual/both', { ...dual, endpoints: { 1: {}, 2: local, 3: {} } });
add('dual/ipv6-first', {
  ...nodePort,
  ipFamilies: ['IPv6', 'IPv4'],
  ports: [{ port: 80, target: 8080, nodePort: 30041 }],
  endpoints: mixed,
});
add('dual/ipv6', { ipFamilies: ['IPv6'] });
add('dual/everything', {
  ...dual,
  ...balancer,
  ...externalLocal,
  ...sticky(3600),
  internalTrafficPolicy: 'Local',
  ports: [{ name: 'web', port: 80, target: 8080, nodePort: 30043 }, { name: 'quic', protocol: 'UDP', port: 443, nodePort: 30044 }],
  externalIPs: ['192.168.99.43', '2001:db8:99::43'],
  ingress: [{ ip: '1.2.3.43' }, { ip: '2001:db8:1::43' }],
  loadBalancerSourceRanges: ['203.0.113.0/25', '2001:db8::/64', 'fd00:192::/64'],
  healthCheckNodePort: 31043,
  endpoints: { 1: {}, 2: local, 3: local, 4: { ...local, ...ending } },
});
// Topology: this node is in zone z1.
add('ns1/zones', {
  ...dual,
  endpoints: {
    1: { hints: { forZones: [{ name: 'z1' }] } },
    2: { hints: { forZones: [{ name: 'z2' }] } },
    3: { hints: { forZones: [{ name: 'z1' }], forNodes: [{ name: 'other-node' }] } },
  },
});
// Names and addresses at their limits.
add(`${'n'.repeat(63)}/${'s'.repeat(63)}`, {
  ports: [{ name: 'p23456789012345', port: 65535 }],
  endpoints: far,
});
add('ns1/zeros', { ...external, externalIPs: ['192.168.099.047'], endpoints: far });
services.at(-1).spec.clusterIPs = [(services.at(-1).spec.clusterIP = '172.30.000.047')];
slices.at(-1).endpoints[0].addresses = ['010.180.047.001'];

export const cluster = { services, slices };

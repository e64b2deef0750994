/** Where packets of tests come from and go to, one of each kind a family. */
export const places = {
  ip: {
    pod: '10.0.0.2',
    /** The node itself, and another address of it. */
    node: '192.168.0.2',
    second: '192.168.1.2',
    loopback: '127.0.0.1',
    /** A host on the node's network. */
    neighbour: '192.168.7.7',
    /** Clients outside: in source ranges of tests is only the first. */
    outside: '203.0.113.2',
    blocked: '203.0.113.130',
    clusterIP: '172.30.0.41',
    clusterIP2: '172.30.0.42',
    /** In the range of cluster addresses, and no Service's. */
    unusedIP: '172.30.0.99',
    externalIP: '192.168.99.11',
    loadBalancer: '1.2.3.4',
    loadBalancer2: '1.2.3.5',
    /** Endpoints: two of other nodes, and one of ours. */
    far: '10.0.1.2',
    far2: '10.0.1.4',
    near: '10.0.1.3',
  },
  ip6: {
    pod: 'fd00:10::2',
    node: 'fd00:192::2',
    second: 'fd00:192:1::2',
    loopback: '::1',
    neighbour: 'fd00:192:7::7',
    outside: '2001:db8::2',
    blocked: '2001:db8:0:1::130',
    clusterIP: 'fd00:96::41',
    clusterIP2: 'fd00:96::42',
    unusedIP: 'fd00:96::99',
    externalIP: '2001:db8:99::11',
    loadBalancer: '2001:db8:1::4',
    loadBalancer2: '2001:db8:1::5',
    far: 'fd00:10::1:2',
    far2: 'fd00:10::1:4',
    near: 'fd00:10::1:3',
  },
} as const;

export type Place = keyof (typeof places)['ip'];
/** The addresses of one family. */
export type Places = Readonly<Record<Place, string>>;

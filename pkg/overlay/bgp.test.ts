import { describe, expect, test } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import type { BackendResult, SelfNode } from './backend.ts';
import { bgpRouting, type BgpOptions } from './bgp.ts';
import { renderBirdConfig } from './bird-config.ts';
import type { NodeFacts } from './node-facts.ts';
import { announce, onlyIp4, peer, same, self } from './testdata/nodes.ts';

function speaking(node: NodeFacts): NodeFacts {
  const { ip, ip6 } = node.announcements;
  return {
    ...node,
    announcements: {
      ...(ip && { ip: { backend: 'bgp', publicIP: ip.publicIP } }),
      ...(ip6 && { ip6: { backend: 'bgp', publicIP: ip6.publicIP } }),
    },
  };
}

const mesh = { asNumber: 64_512, reflectors: [] };

/** With what BIRD is told. */
function speak(
  peers: readonly NodeFacts[],
  node: SelfNode,
  options: BgpOptions,
): BackendResult & { readonly routingConfig: string | undefined } {
  const result = bgpRouting(peers, node, options);
  return { ...result, routingConfig: result.routing && renderBirdConfig(result.routing) };
}

/** The lines of one session, by its neighbour. */
function session(config: string | undefined, neighbor: string): string[] {
  const name = `podwire_${neighbor.replaceAll(/[.:]/g, '_')}`;
  const [, body = ''] =
    new RegExp(`^protocol bgp ${name} \\{\\n([^]*?)^\\}`, 'm').exec(config ?? '') ?? [];
  return body
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

const neighbors = (config: string | undefined): string[] =>
  [...(config ?? '').matchAll(/^ {2}neighbor (\S+) /gm)].map(([, address = '']) => address);

describe('bgpRouting()', () => {
  test('golden: the configuration of a node with one neighbour', () => {
    const result = speak([speaking(same('b', 2))], onlyIp4, mesh);
    expect(result.routingConfig).toBe(`# Written by podwire-node; what is changed here is lost.

ipv4 table podwire4;

protocol pipe podwire_pipe4 {
  table podwire4;
  peer table master4;
  import none;
  export where source = RTS_BGP;
}

protocol static podwire_pods4 {
  ipv4 { table podwire4; };
  route 10.244.1.0/24 unreachable;
}

protocol bgp podwire_192_168_1_2 {
  local 192.168.1.1 as 64512;
  neighbor 192.168.1.2 as 64512;
  direct;
  graceful restart on;
  connect delay time 1;
  connect retry time 5;
  error wait time 1, 30;
  ipv4 {
    table podwire4;
    gateway direct;
    import where !(net ~ [ 10.244.1.0/24+ ]) && net != 0.0.0.0/0;
    export where source = RTS_STATIC;
  };
}
`);
    expect(result).toMatchObject({ objects: [], problems: [], mtuBytes: 1500 });
    expect(result.announcements).toEqual({ ip: announce('bgp', '192.168.1.1') });
  });

  test('a full mesh in both families: each over its own', () => {
    const { routingConfig } = speak([same('b', 2), peer('c', 3)].map(speaking), self, mesh);
    expect(neighbors(routingConfig)).toEqual([
      '192.168.1.2',
      '192.168.2.3',
      'fd00:1::2',
      'fd00:2::3',
    ]);
    expect(session(routingConfig, 'fd00:2::3')).toEqual(
      expect.arrayContaining(['multihop;', 'gateway recursive;', 'igp table master6;']),
    );
  });

  test('with reflectors a node speaks with them alone, and with new nodes nothing changes', () => {
    const options = { asNumber: 64_512, reflectors: [parseAddress('192.168.1.254')] };
    const before = speak([], onlyIp4, options);
    const after = speak([speaking(same('b', 2))], onlyIp4, options);
    expect(neighbors(before.routingConfig)).toEqual(['192.168.1.254']);
    expect(after.routingConfig).toBe(before.routingConfig);
    expect(session(after.routingConfig, '192.168.1.254')).not.toContain('rr client;');
    // What it hands on of nodes beyond our L2 goes by it.
    const hops = 'podwire_192_168_1_254_hops';
    expect(session(after.routingConfig, '192.168.1.254')).toContain(`igp table ${hops};`);
    expect(after.routingConfig).toContain(`protocol direct ${hops}_direct {
  ipv4 { table ${hops}; };
  interface "eth0";
}

protocol static ${hops}_default {
  ipv4 { table ${hops}; };
  route 0.0.0.0/0 via 192.168.1.254;
}
`);
  });

  test('a node that is a reflector speaks with all, and hands on what it hears', () => {
    const reflectors = ['192.168.1.1', '192.168.1.2'].map(parseAddress);
    const { routingConfig } = speak([same('b', 2), same('c', 3)].map(speaking), onlyIp4, {
      asNumber: 64_512,
      reflectors,
    });
    expect(neighbors(routingConfig)).toEqual(['192.168.1.2', '192.168.1.3']);
    expect(session(routingConfig, '192.168.1.2')).not.toContain('rr client;');
    expect(session(routingConfig, '192.168.1.3')).toEqual(
      expect.arrayContaining([
        'rr client;',
        'export where source = RTS_STATIC || source = RTS_BGP;',
      ]),
    );
  });

  test('a family without a reflector is our own problem', () => {
    const options = { asNumber: 64_512, reflectors: [parseAddress('192.168.1.254')] };
    expect(speak([], self, options).problems).toEqual([
      { node: 'a', message: 'Cannot announce IPv6 pods: no route reflector has an IPv6 address' },
    ]);
  });

  test('two nodes of one address have one session: BIRD takes no name twice', () => {
    // A machine that joined again under another name, while its old Node is still there.
    const again = { ...speaking(same('b', 2)), name: 'renamed' };
    const { problems, routingConfig } = speak([speaking(same('b', 2)), again], onlyIp4, mesh);
    expect(neighbors(routingConfig)).toEqual(['192.168.1.2']);
    expect(problems).toEqual([
      {
        node: 'renamed',
        message: 'Cannot speak BGP with the node: its address 192.168.1.2 is that of node b',
      },
    ]);
    const twice = ['192.168.1.254', '192.168.1.254'].map(parseAddress);
    const reflected = speak([], onlyIp4, { asNumber: 64_512, reflectors: twice });
    expect(neighbors(reflected.routingConfig)).toEqual(['192.168.1.254']);
  });

  test('a peer of another backend is reported; one that has announced nothing is not', () => {
    const silent = { ...peer('c', 3), announcements: {} };
    const result = speak([same('b', 2), silent], onlyIp4, mesh);
    expect(neighbors(result.routingConfig)).toEqual([]);
    expect(result.problems).toEqual([
      {
        node: 'b',
        message: "Cannot speak BGP with 192.168.1.2: the node's agent runs the backend vxlan",
      },
    ]);
  });
});

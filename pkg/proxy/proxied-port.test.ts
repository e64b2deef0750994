import { describe, expect, it } from 'vitest';
import { byKey, byName, countWithoutLocal, portKey } from './proxied-port.ts';
import { places } from './testdata/places.ts';
import { local, service, slice, snapshot } from './testdata/records.ts';
import { balanced } from './testdata/verdicts.ts';

const { far, near } = places.ip;
const terminating = { ...local(near), terminating: true };
const internal = { internalTrafficPolicy: 'Local' } as const;
const external = { externalTrafficPolicy: 'Local' } as const;

describe('what is dropped because this node has no endpoint is counted', () => {
  it.each([
    ['S66. internal Local, endpoints elsewhere', internal, [far], { internal: 1, external: 0 }],
    ['S67. external Local, endpoints elsewhere', external, [far], { internal: 0, external: 1 }],
    ['S68. both', { ...internal, ...external }, [far], { internal: 1, external: 1 }],
    ['S69. both, no endpoints', { ...internal, ...external }, [], { internal: 0, external: 0 }],
    ['S70. only a terminating one here', internal, [terminating], { internal: 0, external: 0 }],
    ['S55. both Cluster', {}, [far], { internal: 0, external: 0 }],
  ])('%s', (_, fields, endpoints, counts) => {
    const slices = [slice('ns1/svc1', endpoints)];
    const { ports } = snapshot({ services: [balanced(places.ip, fields)], slices });
    expect(countWithoutLocal(ports)).toEqual(counts);
  });
});

it('keys sort as the ports they are of', () => {
  const names = ['ns/a', 'ns/a-b', 'ns/a.b', 'ns/b', 'ns-b/a'];
  const services = names.flatMap((name) => {
    const protocols = ['TCP', 'UDP', 'SCTP'] as const;
    const portNames = name === 'ns/b' ? ['x', 'x-y'] : [''];
    const ports = protocols.flatMap((protocol) =>
      portNames.map((portName) => ({ name: portName, protocol, port: 80, nodePort: 0 })),
    );
    return service(name, { clusterIPs: ['172.30.0.41'], ports });
  });
  const { ports } = snapshot({ services });
  expect(ports).toHaveLength(18);
  const byTheirNames = ports.toSorted(byName).map(portKey);
  expect(ports.map(portKey).toReversed().toSorted(byKey)).toEqual(byTheirNames);
});

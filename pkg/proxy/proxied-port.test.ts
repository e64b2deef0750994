/** What is dropped because this node has no endpoint is counted, whatever the mode. */
import { expect, it } from 'vitest';
import { countWithoutLocal } from './proxied-port.ts';
import { places } from './testdata/places.ts';
import { local, slice, snapshot } from './testdata/records.ts';
import { balanced } from './testdata/verdicts.ts';

const { far, near } = places.ip;
const terminating = { ...local(near), terminating: true };
const internal = { internalTrafficPolicy: 'Local' } as const;
const external = { externalTrafficPolicy: 'Local' } as const;

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

import { expect, it } from 'vitest';
import { nodePortsOn } from './ipvs-mode.ts';

const own = ['10.1.0.1', '169.254.20.10', '192.168.0.2'];

it.each([
  ['all', ['10.1.0.1', '192.168.0.2']],
  [['192.168.0.2', '192.168.0.9'], ['192.168.0.2']],
  [['169.254.20.10'], []],
  [[], []],
] as const)(
  'node ports of %j answer on addresses of the host, not on link-local ones',
  (targets, answering) => {
    expect(nodePortsOn(targets, own)).toEqual(answering);
  },
);

import { expect, test } from 'vitest';
import { inStrokes } from './strokes.ts';

test('a neighbour is made together with what is said of it next, all else is by itself', () => {
  const strokes = [
    ['router bgp 64512'],
    ['neighbor PODWIRE-4 peer-group'],
    ['neighbor PODWIRE-4 remote-as 64512'],
    ['neighbor 192.168.1.2 peer-group PODWIRE-4', 'neighbor 192.168.1.2 graceful-restart'],
    ['neighbor 192.168.1.22 peer-group PODWIRE-4'],
    ['neighbor 192.168.1.2 graceful-restart'],
    ['neighbor fd00:1::2 peer-group PODWIRE-6', 'neighbor fd00:1::2 graceful-restart'],
    ['exit'],
  ];
  expect(inStrokes(strokes.flat())).toEqual(strokes);
  expect(inStrokes([])).toEqual([]);
});

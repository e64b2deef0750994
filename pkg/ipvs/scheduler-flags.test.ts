import { expect, it } from 'vitest';
import { schedulerFlags } from './scheduler-flags.ts';

it.each([
  ['rr', [], ''],
  ['sh', [], 'sh-fallback'],
  ['sh', ['sh-port', 'sh-fallback'], 'sh-fallback,sh-port'],
  ['sh', ['sh-port'], 'sh-port'],
  ['dh', [], ''],
  ['sh', ['none'], ''],
  ['mh', [], 'mh-fallback,mh-port'],
  ['mh', ['mh-fallback'], 'mh-fallback'],
  ['mh', ['none'], ''],
])('schedulerFlags() of %s with %j', (scheduler, given, flags) => {
  expect(schedulerFlags(scheduler, given)).toBe(flags);
});

import { describe } from 'vitest';
import { testDelegates } from './scratch-delegates.ts';

/** ipvlan is the same for a meta plugin: delegates.vm.test.ts. */
describe('as delegates of a meta plugin', () => testDelegates('macvlan'));

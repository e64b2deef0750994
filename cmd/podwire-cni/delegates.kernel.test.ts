import { describe } from 'vitest';
import { testDelegates } from './scratch-delegates.ts';

/** ipvlan is the same for a meta plugin, and most kernels for containers lack it. */
describe('as delegates of a meta plugin', () => testDelegates('macvlan'));

import { describe } from 'vitest';
import { testDelegates } from './scratch-delegates.ts';

/** Most kernels for containers lack ipvlan. */
describe('as delegates of a meta plugin', () => testDelegates('ipvlan'));

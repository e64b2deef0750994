import { constants } from 'node:os';
import { getSystemErrorMap } from 'node:util';
import { expect, it } from 'vitest';
import { EINTR, ENOBUFS, errnoName, errnoText } from './errno.ts';

/** Second names of one number. */
const aliases = ['EWOULDBLOCK', 'ENOTSUP', 'EDEADLOCK'];

it('names every error number as Node does', () => {
  const known = Object.entries(constants.errno).filter(([name]) => !aliases.includes(name));
  expect(known.map(([, errno]) => errnoName(errno))).toEqual(known.map(([name]) => name));
  expect([EINTR, ENOBUFS]).toEqual([constants.errno.EINTR, constants.errno.ENOBUFS]);
});

it('says what Node says', () => {
  const known = Object.entries(constants.errno).flatMap(([, errno]) => {
    const text = getSystemErrorMap().get(-errno)?.[1];
    return text === undefined ? [] : [[errno, text]];
  });
  expect(known.map(([errno]) => [errno, errnoText(Number(errno))])).toEqual(known);
});

it('knows what the kernel lets out, and gives numbers to the rest', () => {
  expect([errnoName(524), errnoText(524)]).toEqual(['ENOTSUPP', 'operation is not supported']);
  expect([errnoName(999), errnoText(999)]).toEqual(['errno 999', 'errno 999']);
});

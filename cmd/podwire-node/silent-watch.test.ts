import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { watchSilent } from './silent-watch.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test('a change is told a second later at the latest, once; nothing is told of none', () => {
  let state = '1';
  const [onChange, onError] = [vi.fn(), vi.fn()];
  using _ = watchSilent({ read: () => new Map([['it', state]]), onChange, onError });
  vi.advanceTimersByTime(10_000);
  expect(onChange).not.toHaveBeenCalled();
  state = '0';
  vi.advanceTimersByTime(1_000);
  expect(onChange).toHaveBeenCalledOnce();
  vi.advanceTimersByTime(10_000);
  expect(onChange).toHaveBeenCalledOnce();
  expect(onError).not.toHaveBeenCalled();
});

test('what is changed again, after we mended it and before the next look, is told again; what we mended is not', () => {
  const state = new Map([['it', '1']]);
  const onChange = vi.fn();
  using watch = watchSilent({ read: () => state, onChange, onError: vi.fn() });
  vi.advanceTimersByTime(1_000);
  state.set('it', '0');
  vi.advanceTimersByTime(1_000);
  expect(onChange).toHaveBeenCalledTimes(1);
  watch.wrote('it', '1');
  vi.advanceTimersByTime(1_000);
  expect(onChange).toHaveBeenCalledTimes(2);
  state.set('it', '1');
  watch.wrote('it', '1');
  state.delete('other');
  watch.wrote('other', undefined);
  vi.advanceTimersByTime(1_000);
  expect(onChange).toHaveBeenCalledTimes(2);
});

test('a look that fails is told, and the next one is a second later', () => {
  const [onChange, onError] = [vi.fn(), vi.fn()];
  const read = vi.fn((): ReadonlyMap<string, string> => {
    throw new Error('refused');
  });
  using _ = watchSilent({ read, onChange, onError });
  vi.advanceTimersByTime(3_000);
  expect(onError.mock.calls).toEqual(Array(3).fill([new Error('refused')]));
  expect(onChange).not.toHaveBeenCalled();
});

test('a look that takes its time has a fiftieth of all time', () => {
  const read = vi.fn(() => {
    // The clock that it is measured by goes on while it reads.
    vi.advanceTimersByTime(100);
    return new Map();
  });
  using _ = watchSilent({ read, onChange: vi.fn(), onError: vi.fn() });
  vi.advanceTimersByTime(1_000);
  expect(read).toHaveBeenCalledTimes(1);
  vi.advanceTimersByTime(4_800);
  expect(read).toHaveBeenCalledTimes(1);
  vi.advanceTimersByTime(200);
  expect(read).toHaveBeenCalledTimes(2);
});

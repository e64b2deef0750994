import { describe, expect, test } from 'vitest';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { createTableDriver } from './host-driver.ts';

const { signal } = new AbortController();

function failing(code: string): () => Promise<never> {
  return () => Promise.reject(new AgentError(code, `Cannot run nft: ${code}`));
}

describe('createTableDriver()', () => {
  test('a machine without nft has no table, when nothing is to be masqueraded', async () => {
    const driver = createTableDriver(failing('NftMissing'), { masquerade: false });
    expect(await driver.observe(signal)).toEqual([]);
  });

  test.each([
    ['NftMissing', true],
    ['CommandFailed', false],
  ])('%s is an error with masquerade: %s', async (code, masquerade) => {
    const driver = createTableDriver(failing(code), { masquerade });
    await expect(driver.observe(signal)).rejects.toThrow(code);
  });
});

import { expect, it, vi } from 'vitest';
import { foreignAddresses } from './ipvs-options.ts';

const port = (externalIPs: readonly string[], loadBalancerIPs: readonly string[] = []) => ({
  externalIPs,
  loadBalancerIPs,
});
const ports = [port(['192.0.2.9'], ['192.0.2.1']), port(['192.0.2.2', '192.0.2.1']), port([])];

it('are those of other hosts that Services claim, each once, sorted', () => {
  const others = new Set(['192.0.2.9', '192.0.2.7', '192.0.2.1']);
  expect(foreignAddresses(ports, () => others)).toEqual(['192.0.2.1', '192.0.2.9']);
});

it('are all that Services claim while other hosts are not known', () => {
  expect(foreignAddresses(ports, () => undefined)).toEqual(['192.0.2.1', '192.0.2.2', '192.0.2.9']);
});

it('are none, and nobody is asked, where no Service claims any', () => {
  const others = vi.fn(() => undefined);
  expect(foreignAddresses([port([]), port([])], others)).toEqual([]);
  expect(others).not.toHaveBeenCalled();
});

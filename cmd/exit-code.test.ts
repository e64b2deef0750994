import { expect, test } from 'vitest';
import { parseNodeConfig } from '#pkg/config/node-config.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { inClusterConfig } from '#pkg/kube/in-cluster.ts';
import { loadKubeconfig } from '#pkg/kube/kubeconfig.ts';
import { exitCodeFor, failureFields } from './exit-code.ts';

test.each<[string, number, () => unknown]>([
  ['a kubeconfig that is not there', 2, () => loadKubeconfig('/nonexistent/kubeconfig')],
  ['no cluster around', 2, () => inClusterConfig({ host: undefined, port: undefined })],
  ['an unknown key', 2, () => parseNodeConfig('bakend: vxlan', 'the file')],
  ['no permission', 1, () => Promise.reject(new AgentError('EPERM', 'Cannot open a socket'))],
])('exitCodeFor(%s) is %i', async (_, code, fail) => {
  const error: unknown = await Promise.try(fail).catch((caught: unknown) => caught);
  expect(exitCodeFor(error)).toBe(code);
});

test('of what a person has to put right the reason is told, of all else where it happened', () => {
  const wrong = new AgentError('InvalidConfig', 'Cannot use node.yaml: mtu: too small');
  expect(failureFields(wrong)).toEqual({ reason: 'Cannot use node.yaml: mtu: too small' });
  const bug = new Error('no such property');
  expect(failureFields(bug)).toEqual({ reason: 'no such property', err: bug });
});

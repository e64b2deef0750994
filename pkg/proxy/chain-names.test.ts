import { expect, it } from 'vitest';
import { endpointChainName, serviceChainNames } from './chain-names.ts';

it.each([
  ['ns1/svc1:p80', 'tcp', 'XPGD46QRK7WJZT7O'],
  ['ns2/svc2:p80', 'tcp', 'GNZBNJ2PO5MGZ6GT'],
  ['default/kubernetes:https', 'tcp', 'NPX46M4PTMTKRN6Y'],
  ['kube-system/kube-dns:dns', 'udp', 'TCOU7JCQXEZGVUNU'],
  ['kube-system/kube-dns:dns-tcp', 'tcp', 'ERIFXISQEP7F7OF4'],
] as const)('S117. the chains of %s %s end in %s, as in every cluster', (name, protocol, hash) => {
  expect(serviceChainNames(name, protocol)).toEqual({
    cluster: `KUBE-SVC-${hash}`,
    local: `KUBE-SVL-${hash}`,
    external: `KUBE-EXT-${hash}`,
    firewall: `KUBE-FW-${hash}`,
  });
});

it.each([
  ['ns1/svc1:p80', '10.180.0.1:80', 'KUBE-SEP-SXIVWICOYRO3J4NJ'],
  ['ns5/svc5:p80', '10.180.0.3:80', 'KUBE-SEP-I77PXRDZVX7PMWMN'],
])('S117. the chain of endpoint %s %s is %s', (name, target, chain) => {
  expect(endpointChainName(name, 'tcp', target)).toBe(chain);
  expect(chain.length).toBeLessThanOrEqual(28);
});

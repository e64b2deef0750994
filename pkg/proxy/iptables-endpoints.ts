/** The chains that choose among endpoints, and those that send to one. */
import { comment, formatRule, oneIn, protocolMatch } from '#pkg/iptables/rule.ts';
import { endpointChainName } from './chain-names.ts';
import type { Endpoint } from './endpoints.ts';
import { chains } from './iptables-base.ts';
import type { ServicePort } from './service-port.ts';

/**
 * Chooses an endpoint with equal chances: the i-th of n takes one in n - i of what the ones before
 * it left. A client with affinity first looks for the endpoint that remembers it.
 */
export function policyChain(
  port: ServicePort,
  endpoints: readonly Endpoint[],
  withComments: boolean,
): string[] {
  const steps = endpoints.map((endpoint, i) => ({
    target: endpointChainName(port.printName, port.protocol, endpoint.target),
    text: withComments ? [comment(`${port.printName} -> ${endpoint.target}`)] : [],
    outOf: endpoints.length - i,
  }));
  const affinity = steps.map(({ target, text }) =>
    formatRule({
      matches: [...text, recent(port, target, `--rcheck --seconds ${port.affinitySeconds} --reap`)],
      target,
    }),
  );
  const balance = steps.map(({ target, text, outOf }) =>
    formatRule({ matches: outOf > 1 ? [...text, oneIn(outOf)] : text, target }),
  );
  return port.affinitySeconds === 0 ? balance : [...affinity, ...balance];
}

/** Sends to one endpoint. */
export function endpointChain(
  port: ServicePort,
  endpoint: Endpoint,
  name: string,
  withComments: boolean,
): string[] {
  const source = `${endpoint.address}/${port.family === 'ip' ? 32 : 128}`;
  const text = withComments ? [comment(port.printName)] : [];
  return [
    // A pod that reaches itself would answer itself directly, past the translation.
    formatRule({ source, matches: text, target: chains.markMasquerade }),
    formatRule({
      protocol: port.protocol,
      matches: [
        ...text,
        ...(port.affinitySeconds === 0 ? [] : [recent(port, name, '--set')]),
        protocolMatch(port.protocol),
      ],
      target: `DNAT --to-destination ${endpoint.target}`,
    }),
  ];
}

/** The kernel's list of recent sources of one endpoint (xt_recent). */
function recent(port: ServicePort, list: string, action: string): string {
  const mask = port.family === 'ip' ? '255.255.255.255' : Array(8).fill('ffff').join(':');
  return `-m recent ${action} --name ${list} --mask ${mask} --rsource`;
}

/**
 * The plugin of the pod network: everything a pod needs, from one entry in the conflist. It says
 * what that is in the bridge plugin's words, with what the node daemon found out, and runs that.
 */
import { formatPrefix } from '#pkg/ip/prefix.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import { readRuntimeConfig, refuseFields, type NetworkConfig } from '#pkg/cni/config.ts';
import { readInteger, readObject, readString, type JsonFields } from '#pkg/cni/json-fields.ts';
import type { CniPlugin, CniRequest } from '#pkg/cni/plugin.ts';
import { messageOf } from '#pkg/errors/agent-error.ts';
import type { CniSystem } from './cni-system.ts';
import { bridgePlugin } from './main/bridge.ts';
import { readNodeFacts, type NodeFacts } from './node-facts.ts';

export function podwirePlugin(system: CniSystem): CniPlugin {
  const bridge = bridgePlugin(system);
  return {
    about: 'Podwire: the pod network of a Kubernetes node',
    add: (request) => bridge.add(withFacts(request)),
    check: (request) => bridge.check?.(withFacts(request)),
    // These two must work without the node's facts: a pod goes while the daemon is away.
    del: (request) => bridge.del(withBridgeConfig(request, undefined)),
    gc: (request) => bridge.gc?.(withBridgeConfig(request, undefined)),
    status: (request) => {
      try {
        bridge.status?.(withFacts(request));
      } catch (error) {
        throw new CniError(cniCode.notAvailable, `Cannot add pods: ${messageOf(error)}`);
      }
    },
  };
}

const defaultNodeFile = '/run/podwire/node.json';

function withFacts<R extends CniRequest>(request: R): R {
  const { fields } = request.config;
  const runtime = readRuntimeConfig(request.config);
  if (runtime !== undefined) refuseFields(runtime, ['portMappings', 'bandwidth']);
  const facts = readNodeFacts(readString(fields, 'nodeFile') ?? defaultNodeFile);
  return withBridgeConfig(request, facts);
}

function withBridgeConfig<R extends CniRequest>(request: R, facts: NodeFacts | undefined): R {
  return { ...request, config: bridgeConfigOf(request.config, facts) };
}

/**
 * The bridge plugin's configuration for this network: one address of every pod subnet, the bridge as
 * gateway and default route. What the configuration says itself comes first: `bridge`, `mtu`,
 * `hairpinMode`, and an `ipam` with ranges or a type of its own.
 */
export function bridgeConfigOf(config: NetworkConfig, facts: NodeFacts | undefined): NetworkConfig {
  const { fields } = config;
  const mtu = readInteger(fields, 'mtu', { min: 0, max: 65_535 }) ?? 0;
  const values = {
    isDefaultGateway: true,
    // A pod that reaches itself through its Service comes back by the port it left by.
    hairpinMode: true,
    ...fields.values,
    mtu: mtu === 0 ? (facts?.mtuBytes ?? 0) : mtu,
    ipam: ipamOf(readObject(fields, 'ipam'), facts),
  };
  return { ...config, fields: { ...fields, values }, text: JSON.stringify(values) };
}

function ipamOf(ipam: JsonFields | undefined, facts: NodeFacts | undefined): object {
  const own = ipam?.values ?? {};
  const type = 'type' in own ? own['type'] : 'host-local';
  const hasRanges = 'ranges' in own || 'subnet' in own;
  if (type !== 'host-local' || hasRanges || facts === undefined) return { ...own, type };
  return { ...own, type, ranges: facts.podCidrs.map((cidr) => [{ subnet: formatPrefix(cidr) }]) };
}

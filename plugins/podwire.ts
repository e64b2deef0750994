/**
 * The plugin of the pod network: everything a pod needs, from one entry in the conflist, with what
 * the node daemon found out. Its parts are in podwire/.
 */
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import type { CniPlugin, CniRequest } from '#pkg/cni/plugin.ts';
import { messageOf } from '#pkg/errors/agent-error.ts';
import type { CniSystem } from './cni-system.ts';
import { readNodeFacts } from './node-facts.ts';
import { addPod } from './podwire/add-pod.ts';
import { checkNode, checkPod } from './podwire/check-pod.ts';
import { collectPods, deletePod } from './podwire/delete-pod.ts';
import { podTools } from './podwire/pod-tools.ts';
import { bridgeConfigOf, nodeFilePath } from './podwire/podwire-config.ts';

/**
 * `type: podwire`: what the bridge plugin does or a route to each pod, with host ports, limits and guards.
 */
export function podwirePlugin(system: CniSystem): CniPlugin {
  return {
    about: 'Podwire: the pod network of a Kubernetes node',
    add: (request) => addPod(podTools(system, request), withFacts(request)),
    check: (request) => checkPod(podTools(system, request), withFacts(request)),
    // These two must work without the node's facts: a pod goes while the daemon is away.
    del: (request) => deletePod(podTools(system, request), withoutFacts(request)),
    gc: (request) => collectPods(podTools(system, request), withoutFacts(request)),
    status: (request) => {
      try {
        checkNode(podTools(system, request), withFacts(request));
      } catch (error) {
        const said = error instanceof CniError ? error : undefined;
        // An IPAM plugin's: pods that are there are concerned too.
        if (said?.cniCode === cniCode.notAvailableConnectivityLimited) throw said;
        throw new CniError(cniCode.notAvailable, `Cannot add pods: ${messageOf(error)}`, {
          hint: said?.hint,
        });
      }
    },
  };
}

function withFacts<R extends CniRequest>(request: R): R {
  const facts = readNodeFacts(nodeFilePath(request.config));
  return { ...request, config: bridgeConfigOf(request.config, facts) };
}

function withoutFacts<R extends CniRequest>(request: R): R {
  return { ...request, config: bridgeConfigOf(request.config, undefined) };
}

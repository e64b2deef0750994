/**
 * Somebody else routes pod traffic between nodes: a cloud's route table, the network's own routers.
 * The node still gets its conflist and its masquerade rules.
 */
import { carryFamilies, type BackendResult, type SelfNode } from './backend.ts';

/** Nothing but the MTU: the underlay's own, or the one that is configured. */
export function noObjects(
  self: SelfNode,
  options: { readonly mtuBytes?: number } = {},
): BackendResult {
  const mtu = {
    overheadBytes: { ip: 0, ip6: 0 },
    ...(options.mtuBytes === undefined ? {} : { limitBytes: options.mtuBytes }),
  };
  // Announced all the same: other nodes then know an address of ours that pods may call.
  return carryFamilies(self, mtu, ({ local }) => ({
    objects: [],
    problems: [],
    announcement: { backend: 'none', publicIP: local },
  }));
}

/** The bridge plugin: pods on a Linux bridge, a drop-in for the reference plugin of that name. */
import type { CniPlugin } from '#pkg/cni/plugin.ts';
import type { CniSystem } from '#plugins/cni-system.ts';
import { addToBridge } from './bridge-add.ts';
import { checkOnBridge } from './bridge-check.ts';
import { parseBridgeConfig } from './bridge-config.ts';
import { collectBridge, deleteFromBridge } from './bridge-del.ts';
import { ipamOf } from './ipam.ts';

/** `type: bridge`, as the reference plugin of this name. */
export function bridgePlugin(system: CniSystem): CniPlugin {
  return {
    about: 'Podwire bridge: pods on a Linux bridge',
    add: (request) => addToBridge(system, request),
    del: (request) => deleteFromBridge(system, request),
    check: (request) => checkOnBridge(system, request),
    gc: (request) => collectBridge(system, request),
    status: (request) => {
      parseBridgeConfig(request);
      ipamOf(system, request)?.status(request);
    },
  };
}

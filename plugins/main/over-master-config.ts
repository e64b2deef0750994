/** What the configurations of macvlan and ipvlan have in common. */
import type { Family } from '#pkg/ip/address.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import type { NetworkConfig } from '#pkg/cni/config.ts';
import { interfaceNameProblem } from '#pkg/cni/environment.ts';
import { readBoolean, readInteger, readString, unexpected } from '#pkg/cni/json-fields.ts';
import { getLink, type Link } from '#pkg/netlink/link.ts';
import { listRoutes } from '#pkg/netlink/route.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';

export interface OverMasterConfig {
  /** Undefined: the interface of the default route. */
  readonly master: string | undefined;
  /** The master is in the pod's namespace too. */
  readonly linkInContainer: boolean;
  /** Undefined: the master's. */
  readonly mtuBytes: number | undefined;
}

/** @throws {CniError} code 7 */
export function parseOverMaster({ fields }: NetworkConfig): OverMasterConfig {
  const master = readString(fields, 'master') ?? '';
  const problem = master === '' ? undefined : interfaceNameProblem(master);
  if (problem !== undefined) {
    throw unexpected('master', `an interface name (this one ${problem})`, master);
  }
  const mtuBytes = readInteger(fields, 'mtu', { min: 0, max: 65_535 }) ?? 0;
  return {
    master: master === '' ? undefined : master,
    linkInContainer: readBoolean(fields, 'linkInContainer') ?? false,
    mtuBytes: mtuBytes === 0 ? undefined : mtuBytes,
  };
}

/** One of the names in `mode`; the first when the configuration has none. */
export function readMode<M extends string>(
  { fields }: NetworkConfig,
  kind: string,
  modes: readonly [M, ...M[]],
): M {
  const text = readString(fields, 'mode') ?? '';
  if (text === '') return modes[0];
  const mode = modes.find((name) => name === text);
  if (mode !== undefined) return mode;
  throw new CniError(cniCode.invalidConfig, `unknown ${kind} mode: "${text}"`, {
    hint: `expected one of ${modes.join(', ')}`,
  });
}

/**
 * The master.
 *
 * @param socket in the namespace of the master
 * @throws {CniError} code 7 when there is none, or it carries less than `mtu`
 */
export function findMaster(socket: NetlinkSocket, config: OverMasterConfig): Link {
  const { mtuBytes } = config;
  const wanted = config.master ?? defaultRouteIndex(socket);
  const master = getLink(socket, wanted);
  if (master === undefined) {
    throw new CniError(
      cniCode.invalidConfig,
      `failed to lookup master "${wanted}": there is no such interface`,
    );
  }
  if (mtuBytes !== undefined && mtuBytes > master.mtuBytes) {
    throw new CniError(
      cniCode.invalidConfig,
      `invalid MTU ${mtuBytes}, must be [0, master MTU(${master.mtuBytes})]`,
      { hint: `master is ${master.name}` },
    );
  }
  return master;
}

function defaultRouteIndex(socket: NetlinkSocket): number {
  const families: readonly Family[] = ['ip', 'ip6'];
  for (const family of families) {
    const route = listRoutes(socket, { family }).find(
      ({ destination, linkIndex }) => destination.length === 0 && linkIndex !== undefined,
    );
    if (route?.linkIndex !== undefined) return route.linkIndex;
  }
  throw new CniError(cniCode.invalidConfig, 'no default route interface found', {
    hint: 'set "master" to the name of an interface',
  });
}

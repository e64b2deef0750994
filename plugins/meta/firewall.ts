/**
 * The firewall plugin: lets a container's packets through the host's forward chain, and keeps
 * bridges apart; a drop-in for the reference plugin of that name. Chained behind another.
 */
import type { AttachmentKey } from '#pkg/cni/attachment-store.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import { readPrevResult, readValidAttachments } from '#pkg/cni/config.ts';
import type { CniAddRequest, CniPlugin, CniRequest } from '#pkg/cni/plugin.ts';
import type { CniResult } from '#pkg/cni/result.ts';
import { families, formatAddress, type Family } from '#pkg/ip/address.ts';
import { changeBridgePort } from '#pkg/netlink/link-change.ts';
import { getLink } from '#pkg/netlink/link.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import type { CniSystem } from '#plugins/cni-system.ts';
import { isOfAttachment, isStale } from './attachment-comment.ts';
import {
  firewallWishes,
  parseFirewallConfig,
  possibleZone,
  type FirewallWish,
} from './firewall-config.ts';
import { isFirewalldRunning, missingSource, sourcesOf } from './firewall-firewalld.ts';
import { missingForward, planForward, removeForward } from './firewall-iptables.ts';
import {
  firewallTable,
  missingNftForward,
  planNftForward,
  removeNftForward,
} from './firewall-nftables.ts';
import {
  claimSources,
  collectSources,
  openSourceStore,
  releaseSources,
} from './firewall-sources.ts';
import { withHostLock } from './host-lock.ts';
import { readTable, updateTable } from './iptables-table.ts';
import {
  chooseBackend,
  removalFailure,
  requireBackend,
  unlessUnusable,
  type NetfilterBackend,
  type RemovalFailure,
} from './netfilter-backend.ts';
import { readNftTable, updateNftTable } from './nft-table.ts';
import { netfilterRunner, type RunNetfilter } from './run-netfilter.ts';

/** `type: firewall`, as the reference plugin of this name. */
export function firewallPlugin(system: CniSystem): CniPlugin {
  return {
    about: 'Podwire firewall: lets the packets of containers through, keeps bridges apart',
    add: (request) => openForward(system, request),
    del: (request) => closeForward(system, request),
    check: (request) => checkForward(system, request),
    gc: (request) => collectForward(system, request),
    status: (request) => {
      const { backend } = parseFirewallConfig(request.config);
      const run = netfilterRunner(system, request);
      if (backend !== 'firewalld') requireBackend(run, backend, purpose);
      else if (!isFirewalldRunning(run)) throw notRunning(cniCode.notAvailable);
    },
  };
}

const purpose = 'filter forwarded packets';

function openForward(system: CniSystem, request: CniAddRequest): CniResult {
  const { wishes, zone, backend, run, result } = prepare(system, request);
  withHostLock(system.sys, () => {
    using undo = new DisposableStack();
    if (zone !== undefined) {
      const tools = { store: openSourceStore(system.sys, request.config), run };
      claimSources(tools, keyOf(request), { zone, sources: sourcesOf(result) });
      undo.defer(() => releaseSources(tools, keyOf(request)));
    }
    const remove = (): void => {
      removeRules(run, (label) => isOfAttachment(label, request), undefined);
    };
    if (backend === 'nftables') {
      updateNftTable(nftTarget(run), (rules) => planNftForward(rules, wishes));
      undo.defer(remove);
    } else if (backend === 'iptables') {
      for (const wish of wishes) {
        const target = { run, family: wish.family, table: 'filter' } as const;
        updateTable(target, (saved) => planForward(saved, wish));
        undo.defer(remove);
      }
    }
    isolatePort(system, wishes, result);
    undo.move();
  });
  return result;
}

/** Idempotent. Needs names alone; a result tells of rules that the reference plugin made. */
function closeForward(system: CniSystem, request: CniRequest): void {
  const run = netfilterRunner(system, request);
  const result = readPrevResult(request.config);
  const failure = withHostLock(system.sys, () => {
    const zone = possibleZone(request.config);
    const told = zone === undefined ? undefined : { zone, sources: sourcesOf(result) };
    const store = openSourceStore(system.sys, request.config);
    releaseSources({ store, run }, keyOf(request), told);
    return removeRules(run, (label) => isOfAttachment(label, request), result);
  });
  if (failure?.installed === true) throw failure.error;
}

function keyOf({ config, containerId, ifName }: CniRequest): AttachmentKey {
  return { network: config.name, containerId, ifName };
}

function checkForward(system: CniSystem, request: CniAddRequest): void {
  const { wishes, zone, backend, run, result } = prepare(system, request);
  if (zone !== undefined) {
    const source = missingSource(run, zone, sourcesOf(result));
    if (source !== undefined) {
      throw new CniError(cniCode.internal, `${source} is not a source of firewalld's zone ${zone}`);
    }
  }
  if (backend === undefined) return;
  const missing =
    backend === 'nftables'
      ? missingNftForward(readNftTable(nftTarget(run)), wishes)
      : wishes
          .values()
          .map((wish) =>
            missingForward(readTable({ run, family: wish.family, table: 'filter' }), wish),
          )
          .find((text) => text !== undefined);
  if (missing !== undefined) throw new CniError(cniCode.internal, missing);
}

/** Removes what belongs to this network and to no valid attachment. */
function collectForward(system: CniSystem, request: CniRequest): void {
  const valid = readValidAttachments(request.config);
  const run = netfilterRunner(system, request);
  const { name } = request.config;
  const failure = withHostLock(system.sys, () => {
    const removal = removeRules(run, (label) => isStale(label, name, valid), undefined);
    collectSources({ store: openSourceStore(system.sys, request.config), run }, name, valid);
    return removal;
  });
  if (failure?.installed === true) throw failure.error;
}

interface Prepared {
  readonly result: CniResult;
  readonly wishes: readonly FirewallWish[];
  readonly run: RunNetfilter;
  /** Of firewalld; undefined where that is not used. */
  readonly zone: string | undefined;
  /** Undefined where firewalld does all there is to do. */
  readonly backend: NetfilterBackend | undefined;
}

function prepare(system: CniSystem, request: CniAddRequest): Prepared {
  const config = parseFirewallConfig(request.config);
  const result = readPrevResult(request.config);
  if (result === undefined) {
    throw new CniError(cniCode.invalidConfig, 'missing prevResult from earlier plugin');
  }
  const wishes = firewallWishes(request, config, result);
  const run = netfilterRunner(system, request);
  const family = wishes[0]?.family ?? 'ip';
  const choose = (): NetfilterBackend => chooseBackend(run, family, purpose);
  if (config.backend === 'iptables' || config.backend === 'nftables') {
    return { result, wishes, run, zone: undefined, backend: config.backend };
  }
  if (!isFirewalldRunning(run)) {
    if (config.backend === 'firewalld') throw notRunning(cniCode.internal);
    return { result, wishes, run, zone: undefined, backend: choose() };
  }
  // It has zones, and no word for bridges that are to be kept apart.
  const backend = config.ingressPolicy === 'open' ? undefined : choose();
  return { result, wishes, run, zone: config.firewalldZone, backend };
}

function notRunning(code: number): CniError {
  const message = `Cannot ${purpose}: firewalld does not answer`;
  return new CniError(code, message, {
    hint: 'expected it on the system D-Bus, and busctl in PATH',
  });
}

/** From the tables of both backends: the configuration may have changed since. */
function removeRules(
  run: RunNetfilter,
  goes: (label: string) => boolean,
  result: CniResult | undefined,
): RemovalFailure | undefined {
  const iptables = families.map((family) =>
    unlessUnusable((whenRead) => {
      updateTable({ run, family, table: 'filter' }, (saved) => {
        whenRead();
        return removeForward(saved, goes, { family, addresses: addressesOf(result, family) });
      });
    }),
  );
  const nftables = unlessUnusable((whenRead) => {
    updateNftTable(nftTarget(run), (rules) => {
      whenRead();
      return removeNftForward(rules, goes);
    });
  });
  return removalFailure([iptables, [nftables]], 'firewall rules');
}

function nftTarget(run: RunNetfilter) {
  return { run, family: 'inet', table: firewallTable } as const;
}

function addressesOf(result: CniResult | undefined, family: Family): string[] {
  return (result?.ips ?? [])
    .filter(({ address }) => address.address.family === family)
    .map(({ address }) => formatAddress(address.address));
}

/**
 * Frames within a bridge come to the packet filter only where br_netfilter is loaded; the bridge
 * itself always knows which of its ports keep to themselves.
 */
function isolatePort(system: CniSystem, wishes: readonly FirewallWish[], result: CniResult): void {
  const wish = wishes.find(({ config }) => config.ingressPolicy === 'isolated');
  if (wish?.bridge === undefined) return;
  using host = new NetlinkSocket(system.sys);
  const bridge = getLink(host, wish.bridge);
  if (bridge === undefined) return;
  for (const { name, sandbox } of result.interfaces) {
    if (sandbox !== undefined) continue;
    const port = getLink(host, name);
    if (port?.masterIndex !== bridge.index) continue;
    changeBridgePort(host, port.index, { isolated: true });
  }
}

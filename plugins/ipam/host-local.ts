/**
 * host-local: addresses of this node's ranges, remembered in files. A drop-in for the reference
 * plugin of that name, on the same directory; it also runs in-process for our own plugins.
 */
import { readFileSync } from 'node:fs';
import { formatAddress, type Address } from '#pkg/ip/address.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import { readValidAttachments, type NetworkConfig } from '#pkg/cni/config.ts';
import type { Attachment } from '#pkg/cni/environment.ts';
import type { CniAddRequest, CniPlugin, CniRequest } from '#pkg/cni/plugin.ts';
import { emptyDns, type CniIp, type CniResult } from '#pkg/cni/result.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { formatRangeSet, rangeOf, roundRobin, type RangeSet } from './address-range.ts';
import { parseDataDir, parseHostLocalConfig, parseRestMs } from './host-local-config.ts';
import { openLeaseStore, type LeaseStore } from './lease-store.ts';
import { parseResolvConf } from './resolv-conf.ts';

/** What the plugin needs of its machine. */
interface Host {
  readonly sys: Sys;
  readonly now: () => number;
}

/** @param now the wall clock, in milliseconds since the epoch: how long an address has rested */
export function hostLocalPlugin(sys: Sys, now: () => number = Date.now): CniPlugin {
  const host: Host = { sys, now };
  return {
    about: 'Podwire host-local: IP addresses from ranges of this node',
    add: (request) => addAddresses(host, request),
    del: (request) => releaseAddresses(host, request),
    check: (request) => checkAddresses(host, request),
    gc: (request) => collectLeases(host, request),
  };
}

/** One address of each range set, or none at all. */
function addAddresses(host: Host, request: CniAddRequest): CniResult {
  const config = parseHostLocalConfig(request);
  // Read first: a missing file must not cost an address.
  const dns =
    config.resolvConf === undefined
      ? emptyDns
      : parseResolvConf(readFileSync(config.resolvConf, 'utf8'));
  using store = openStore(host, request.config, true);
  refuseSecondAllocation(store, request, config.rangeSets);
  let taken = false;
  try {
    const ips: CniIp[] = [];
    const requested = new Set(config.requested);
    for (const [i, set] of config.rangeSets.entries()) {
      const wanted = [...requested].find((address) => rangeOf(set, address) !== undefined);
      if (wanted !== undefined) requested.delete(wanted);
      const address =
        wanted === undefined
          ? takeNext(store, request, { set, index: i })
          : takeRequested(store, request, { set, address: wanted });
      taken = true;
      store.setLastReserved(i, address);
      const range = rangeOf(set, address);
      if (range === undefined) continue;
      ips.push({ address: { address, length: range.subnet.length }, gateway: range.gateway });
    }
    if (requested.size > 0) throw notAllRequested([...requested]);
    return { interfaces: [], ips, routes: config.routes, dns };
  } catch (error) {
    if (taken) store.release(request);
    throw error;
  }
}

/** A runtime must DEL before it ADDs again; a second address would leak with the first's DEL. */
function refuseSecondAllocation(
  store: LeaseStore,
  request: CniRequest,
  sets: readonly RangeSet[],
): void {
  for (const address of store.addressesOf(request)) {
    if (!sets.some((set) => rangeOf(set, address) !== undefined)) continue;
    throw new CniError(
      cniCode.invalidEnvironment,
      `${formatAddress(address)} has been allocated to ${request.containerId}, duplicate allocation is not allowed`,
    );
  }
}

/** Nearly full ranges: after this many taken addresses in a row, read the directory once. */
const probesBeforeListing = 32;

/** The next address that is free and has rested; where there is none, the one that rests longest. */
function takeNext(
  store: LeaseStore,
  request: CniRequest,
  { set, index }: { readonly set: RangeSet; readonly index: number },
): Address {
  let probes = 0;
  let known: ReadonlySet<string> = new Set();
  const resting: { readonly address: Address; readonly since: number }[] = [];
  for (const address of roundRobin(set, store.lastReserved(index))) {
    if (known.has(formatAddress(address))) continue;
    const since = store.restsSince(address);
    if (since !== undefined) resting.push({ address, since });
    else if (store.take(address, request)) return address;
    if (++probes === probesBeforeListing) known = store.takenAddresses();
  }
  for (const { address } of resting.toSorted((a, b) => a.since - b.since)) {
    if (store.take(address, request)) return address;
  }
  throw new CniError(
    cniCode.tryAgainLater,
    `no IP addresses available in range set: ${formatRangeSet(set)}`,
    { hint: `network ${request.config.name}` },
  );
}

function takeRequested(
  store: LeaseStore,
  request: CniRequest,
  { set, address }: { readonly set: RangeSet; readonly address: Address },
): Address {
  if (rangeOf(set, address)?.gateway.value === address.value) {
    throw new CniError(
      cniCode.invalidConfig,
      `requested ip ${formatAddress(address)} is subnet's gateway`,
    );
  }
  if (store.take(address, request)) return address;
  throw new CniError(
    cniCode.invalidConfig,
    `requested IP address ${formatAddress(address)} is not available in range set ${formatRangeSet(set)}`,
  );
}

function notAllRequested(left: readonly Address[]): CniError {
  return new CniError(
    cniCode.invalidConfig,
    `failed to allocate all requested IPs: ${left.map(formatAddress).join(', ')}`,
  );
}

function releaseAddresses(host: Host, request: CniRequest): void {
  using store = openStore(host, request.config, false);
  store?.release(request);
}

function checkAddresses(host: Host, request: CniAddRequest): void {
  using store = openStore(host, request.config, false);
  if (store !== undefined && store.addressesOf(request).length > 0) return;
  throw new CniError(cniCode.internal, 'host-local: Failed to find address added by container', {
    hint: `container ${request.containerId}, interface ${request.ifName}`,
  });
}

function collectLeases(host: Host, request: CniRequest): void {
  const valid = readValidAttachments(request.config);
  // A lease without an interface name (host-local before 0.8) is the container's, whichever it is.
  const keys = new Set([...valid.map(attachmentKey), ...valid.map((a) => `${a.containerId}:`)]);
  using store = openStore(host, request.config, false);
  for (const attachment of store?.attachments() ?? []) {
    if (!keys.has(attachmentKey(attachment))) store?.release(attachment);
  }
}

function openStore(host: Host, config: NetworkConfig, create: true): LeaseStore;
function openStore(host: Host, config: NetworkConfig, create: boolean): LeaseStore | undefined;
function openStore(
  { sys, now }: Host,
  config: NetworkConfig,
  create: boolean,
): LeaseStore | undefined {
  const [dataDir, restMs] = [parseDataDir(config), parseRestMs(config)];
  return openLeaseStore(sys, { dataDir, network: config.name, create, restMs, now });
}

function attachmentKey({ containerId, ifName }: Attachment): string {
  return `${containerId}:${ifName}`;
}

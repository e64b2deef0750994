/**
 * Whose flows are whose: to which Service, and to which of its endpoints, a translated flow belongs.
 * Kept up to date by changes, so that a look at one flow costs the same among any number of Services.
 */
import { TrafficAccount, type Traffic } from '#pkg/conntrack/flow-tally.ts';
import { addressFromBytes, formatAddress } from '#pkg/ip/address.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { CountedFlow } from '#pkg/netlink/conntrack-counters.ts';
import { frontendKeys } from './nftables-elements.ts';
import type { ProxiedPort } from './proxied-port.ts';
import type { PortChange } from './service-model.ts';

/** What went through one frontend: an address and port, or a node port, that clients ask for. */
interface Frontend {
  /** By portKey: two Services may claim the same external address. */
  readonly claims: Map<string, ProxiedPort>;
  readonly total: TrafficAccount;
  /** By "address port". */
  readonly endpoints: Map<string, TrafficAccount>;
}

/** IPPROTO_*, as keys of frontends spell them. */
const protocols: Readonly<Record<number, string>> = { 6: 'tcp', 17: 'udp', 132: 'sctp' };

export class ServiceAccounts {
  readonly #frontends: Readonly<Record<Family, Map<string, Frontend>>> = {
    ip: new Map(),
    ip6: new Map(),
  };

  /** Takes in changes in the order they happened. What is gone is forgotten with what it counted. */
  update(family: Family, changes: Iterable<PortChange>): void {
    const frontends = this.#frontends[family];
    for (const { key, new: now, old } of changes) {
      const wanted = new Set(now === undefined ? [] : frontendKeys(now));
      for (const name of old === undefined ? [] : frontendKeys(old)) {
        const frontend = frontends.get(name);
        if (frontend === undefined || wanted.has(name)) continue;
        frontend.claims.delete(key);
        if (frontend.claims.size === 0) frontends.delete(name);
        else forgetOthers(frontend);
      }
      if (now === undefined) continue;
      for (const name of wanted) {
        let frontend = frontends.get(name);
        if (frontend === undefined) {
          frontend = { claims: new Map(), total: new TrafficAccount(), endpoints: new Map() };
          frontends.set(name, frontend);
        }
        frontend.claims.set(key, now);
        forgetOthers(frontend);
      }
    }
  }

  /**
   * Where a flow is to be added up; nowhere when none of these Services sent it on its way. Of flows
   * to node ports those count that an endpoint answers: others may translate the same port elsewhere.
   */
  of(flow: CountedFlow): readonly TrafficAccount[] {
    const protocol = protocols[flow.protocol];
    if (protocol === undefined) return [];
    const family = flow.address.byteLength === 4 ? 'ip' : 'ip6';
    const frontends = this.#frontends[family];
    const server = `${addressText(flow.server)} ${flow.serverPort}`;
    const ofAddress = frontends.get(`${addressText(flow.address)} . ${protocol} . ${flow.port}`);
    if (ofAddress !== undefined) return accountsIn(ofAddress, server);
    const ofNode = frontends.get(`${protocol} . ${flow.port}`);
    if (ofNode === undefined || !hasEndpoint(ofNode, server)) return [];
    return accountsIn(ofNode, server);
  }

  /** What went through a frontend ({@link frontendKeys}); undefined for those that are not served. */
  total(family: Family, frontend: string): Traffic | undefined {
    return this.#frontends[family].get(frontend)?.total;
  }

  /** What an endpoint, "address port", carried of it. */
  endpoint(family: Family, frontend: string, endpoint: string): Traffic | undefined {
    return this.#frontends[family].get(frontend)?.endpoints.get(endpoint);
  }
}

function accountsIn(frontend: Frontend, server: string): readonly TrafficAccount[] {
  const { endpoints, total } = frontend;
  let endpoint = endpoints.get(server);
  if (endpoint === undefined) {
    // One that left has flows to end yet.
    if (!hasEndpoint(frontend, server)) return [total];
    endpoints.set(server, (endpoint = new TrafficAccount()));
  }
  return [total, endpoint];
}

function hasEndpoint({ claims }: Frontend, server: string): boolean {
  return [...claims.values()].some((port) =>
    port.endpoints.all.some((endpoint) => keyOf(endpoint) === server),
  );
}

/** Endpoints come and go for ever; what the Service itself has counted stays. */
function forgetOthers({ claims, endpoints }: Frontend): void {
  if (endpoints.size === 0) return;
  const kept = new Set([...claims.values()].flatMap((port) => port.endpoints.all.map(keyOf)));
  for (const server of endpoints.keys()) if (!kept.has(server)) endpoints.delete(server);
}

function keyOf({ address, port }: { readonly address: string; readonly port: number }): string {
  return `${address} ${port}`;
}

/** Canonical. IPv4 is by far the most, and written without ado. */
function addressText(bytes: Uint8Array): string {
  if (bytes.byteLength === 4) return `${bytes[0]}.${bytes[1]}.${bytes[2]}.${bytes[3]}`;
  return formatAddress(addressFromBytes(bytes));
}

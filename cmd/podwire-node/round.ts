/**
 * One round of the daemon: what the node wants now, against what its kernel has. Keeps what it
 * knows of the kernel between rounds, and forgets it on any doubt; decides nothing else.
 */
import { isDeepStrictEqual } from 'node:util';
import { messageOf } from '#pkg/errors/agent-error.ts';
import { isDevice } from '#pkg/host-network/device.ts';
import type { HostObject, Sysctl } from '#pkg/host-network/object.ts';
import { splitRetained } from '#pkg/host-network/plan-retained.ts';
import { planHostNetwork } from '#pkg/host-network/plan.ts';
import { RoamedPeers } from '#pkg/host-network/roamed-peers.ts';
import type { Step } from '#pkg/host-network/step.ts';
import { observedOf, type ObservedTable, type Ruleset } from '#pkg/nftables/ruleset.ts';
import { planNftables, type NftStep } from '#pkg/nftables/plan.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import { parseAddressWishes } from '#pkg/overlay/address-wishes.ts';
import { desiredPodNetwork, type Desired, type HostFacts } from '#pkg/pod-network/desired.ts';
import { PeerIndex, type PeerBasis, type PeerChange } from '#pkg/pod-network/peer-index.ts';
import type { Prefix } from '#pkg/ip/prefix.ts';
import { collect } from './collect.ts';
import { HeldRoutes } from './held-routes.ts';
import { Patience } from './patience.ts';
import { concernsPeersOnly, notPut } from './peer-failures.ts';
import type { RoundParts } from './round-parts.ts';
import { summaryOf } from './step-summary.ts';
import { needsNat, TolerantFilter } from './tolerant-filter.ts';

/** The controller's taint while the condition NetworkUnavailable is True. */
const networkTaint = 'node.kubernetes.io/network-unavailable';

/** A repair waits at most as long for others that have not answered. */
const patienceMs = 1_000;

export class PodNetworkRound {
  readonly #parts: RoundParts;
  #observedAtMs = Number.NEGATIVE_INFINITY;
  /** Set at any time, read at the start of a round: a change during a round counts for the next. */
  #hostInDoubt = true;
  #tablesInDoubt = true;
  #facts: HostFacts | undefined;
  #objects: readonly HostObject[] | undefined;
  #tables: readonly ObservedTable[] | undefined;
  /** What the last full round knew, as long as changes of single peers are all there was since. */
  #basis: PeerBasis | undefined;
  #index: PeerIndex | undefined;
  #held = new HeldRoutes([]);
  readonly #peers = new RoamedPeers();
  #watchedLinks: ReadonlySet<string> | undefined;
  #settings: readonly Sysctl[] = [];
  /** The Node the condition was set for: one made again under its name needs it again. */
  #reportedUid: string | undefined;

  readonly #patience: Patience;
  readonly #filter: TolerantFilter;

  constructor(parts: RoundParts) {
    this.#parts = parts;
    this.#patience = new Patience(parts.clock, patienceMs);
    this.#filter = new TolerantFilter(parts);
  }

  /** Somebody changed links, addresses, routes or neighbours: the next round looks again. */
  doubtHost(): void {
    this.#hostInDoubt = true;
    this.#patience.urge();
  }

  /** Somebody changed a table of ours. */
  doubtTables(): void {
    this.#tablesInDoubt = true;
    this.#patience.urge();
    this.#parts.packetFilter.doubt();
  }

  /** The links whose changes concern us; undefined while that is not known, and all may. */
  get watchedLinks(): ReadonlySet<string> | undefined {
    return this.#watchedLinks;
  }

  /** Those that were wanted last. */
  get settings(): readonly Sysctl[] {
    return this.#settings;
  }

  /** Whether a route of ours leads there. */
  hasRouteTo(destination: Prefix): boolean {
    return this.#held.hasRouteTo(destination);
  }

  /**
   * Brings the node to what it wants. Rejects when something is left to do; all that could be done
   * is done then, and the next round starts by reading the kernel. A round that was waiting for the
   * API server when the kernel changed leaves that to the next one, too.
   */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, host, metrics, nodes, options, routing, status } = this.#parts;
    const startMs = clock.monotonicMs();
    const isSure = this.#forgetWhatIsInDoubt();
    const changes = nodes.drain();
    // At once: what the index has taken and what a full round sees must be the same.
    const records = nodes.snapshot();
    try {
      if (isSure && (await this.#takePeers(changes, signal))) {
        status.roundEnded({ kind: 'ready' });
        metrics.roundEnded('success', clock.monotonicMs() - startMs);
        return;
      }
      const index = this.#indexAfter(changes, isSure);
      this.#basis = undefined;
      this.#index = undefined;
      if (changes.some((change) => this.#movesUs(change))) this.#facts = undefined;
      this.#facts ??= host.facts();
      const want = desiredPodNetwork(records, this.#facts, options);
      if (want.kind === 'not-ready') {
        this.#watchedLinks = undefined;
        this.#objects = undefined;
        status.roundEnded({ kind: 'waiting', reason: want.reason });
        metrics.roundEnded('waiting', clock.monotonicMs() - startMs);
        return;
      }
      this.#settings = want.objects.filter((object) => object.kind === 'sysctl');
      const devices = want.objects.filter(isDevice).map(({ link }) => link);
      this.#watchedLinks = new Set([want.underlay, ...devices]);
      const sessions = routing.problems().map((message) => ({ node: options.nodeName, message }));
      status.setProblems([...want.problems, ...sessions]);
      const own = records.get(options.nodeName);
      const isTold = await this.#converge(want, own, signal);
      this.#basis = want.basis;
      if (index?.fits(want.basis) === true) this.#index = index;
      status.roundEnded(isTold ? { kind: 'ready' } : status.state);
      metrics.roundEnded(isTold ? 'success' : 'waiting', clock.monotonicMs() - startMs);
    } catch (error) {
      this.doubtHost();
      this.doubtTables();
      const reason = messageOf(error);
      status.roundEnded({ kind: 'failing', reason });
      metrics.roundEnded('failure', clock.monotonicMs() - startMs);
      throw error;
    }
  }

  /**
   * Brings the changes of a few peers into the kernel at their own cost. False when that is not all
   * there is to do.
   */
  async #takePeers(changes: readonly PeerChange[], signal: AbortSignal): Promise<boolean> {
    if (this.#basis === undefined || changes.length === 0) return false;
    this.#index ??= new PeerIndex(this.#basis);
    const delta = this.#index.take(changes);
    if (delta === undefined) return false;
    // From here on only the index knows what the kernel has: the next full round reads it there.
    this.#objects = undefined;
    this.#tables = undefined;
    const failures: unknown[] = [];
    await collect(failures, () => this.#writeTables(delta.tableSteps, signal), signal);
    await collect(failures, () => this.#writeObjects(delta.steps, signal), signal);
    if (failures.length > 0) throw new AggregateError(failures, 'Cannot apply the pod network');
    return true;
  }

  /** The index, when it is in step with the nodes of a full round. */
  #indexAfter(changes: readonly PeerChange[], isSure: boolean): PeerIndex | undefined {
    if (changes.length === 0) return this.#index;
    // In a round without doubts it has had these, and could not take them.
    return isSure || this.#index?.take(changes) === undefined ? undefined : this.#index;
  }

  /** Whether nothing was in doubt. */
  #forgetWhatIsInDoubt(): boolean {
    const { clock, observeIntervalMs } = this.#parts;
    const nowMs = clock.monotonicMs();
    if (nowMs - this.#observedAtMs >= observeIntervalMs) {
      this.doubtHost();
      this.doubtTables();
      this.#observedAtMs = nowMs;
    }
    if (this.#hostInDoubt) {
      this.#facts = undefined;
      this.#objects = undefined;
    }
    if (this.#tablesInDoubt) this.#tables = undefined;
    const isSure = !this.#hostInDoubt && !this.#tablesInDoubt;
    this.#hostInDoubt = false;
    this.#tablesInDoubt = false;
    return isSure;
  }

  /** Whether our Node's addresses, or those it is to use, are others now. */
  #movesUs({ old, new: next }: PeerChange): boolean {
    const { annotationPrefix, nodeName } = this.#parts.options;
    if ((next ?? old)?.name !== nodeName) return false;
    const [before, after] = [old, next].map((record) => [
      record?.internalIPs,
      parseAddressWishes(record?.annotations ?? {}, annotationPrefix).local,
    ]);
    return !isDeepStrictEqual(before, after);
  }

  /** False when others have not been told yet, for the sake of the kernel. */
  async #converge(
    want: Desired,
    own: NodeRecord | undefined,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { files } = this.#parts;
    const failures: unknown[] = [];
    // One vocabulary's failure must not keep the other's from being applied. Tables first: what
    // takes a new route before its destination is exempt is masqueraded for the connection's life.
    await collect(failures, () => this.#applyTables(want.ruleset, signal), signal);
    const filter = (): Promise<void> => this.#filter.converge(want.packetFilter, signal);
    const masquerades = want.packetFilter.some(needsNat);
    if (masquerades) await collect(failures, filter, signal);
    const ofObjects: unknown[] = [];
    await collect(ofObjects, () => this.#applyObjects(want, signal), signal);
    failures.push(...ofObjects);
    if (!masquerades) await collect(failures, filter, signal);
    const { forwarder, routing } = this.#parts;
    // It would make a device that is not there: one that nobody could take for ours, nor replace.
    if (ofObjects.every(concernsPeersOnly)) {
      await collect(failures, () => forwarder.apply(want.forwarding), signal);
    }
    await collect(failures, () => routing.apply(want.routing, signal), signal);
    // A route to one peer that fails makes neither us nor the other peers unreachable.
    let isTold = true;
    if (failures.every(concernsPeersOnly)) {
      isTold = await this.#patience.wait((inner) => {
        if (this.#hostInDoubt || this.#tablesInDoubt) this.#patience.urge();
        return this.#tellOthers(want, own, inner);
      }, signal);
    }
    if (isTold && failures.every(concernsPeersOnly)) {
      await files.writeNodeFile(want.nodeFile);
      await files.writeSubnetEnv(want.subnetEnv);
      // Last: from here on the container runtime makes pods.
      await files.writeConflist();
    }
    if (failures.length > 0) throw new AggregateError(failures, 'Cannot apply the pod network');
    return isTold;
  }

  async #tellOthers(
    { annotationPatch }: Desired,
    own: NodeRecord | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const { ownNode } = this.#parts;
    if (Object.keys(annotationPatch).length > 0) await ownNode.annotate(annotationPatch, signal);
    if (own?.uid !== this.#reportedUid || own?.taintKeys.includes(networkTaint) === true) {
      await ownNode.reportNetworkUp(signal);
      this.#reportedUid = own?.uid;
    }
  }

  async #applyObjects(
    { objects: want, retainedDevices }: Desired,
    signal: AbortSignal,
  ): Promise<void> {
    this.#objects ??= this.#parts.host.observe(want);
    const { retained, others } = splitRetained(want, this.#objects, retainedDevices);
    const steps = planHostNetwork(want, this.#peers.accept(want, others));
    try {
      await this.#writeObjects(this.#held.reclaim(steps), signal);
      this.#held = new HeldRoutes(want);
    } catch (error) {
      if (concernsPeersOnly(error)) this.#held = this.#held.after(want, notPut(error));
      throw error;
    }
    this.#peers.settled(want);
    this.#objects = [...want, ...retained];
  }

  async #writeObjects(steps: readonly Step[], signal: AbortSignal): Promise<void> {
    const { host, log, metrics } = this.#parts;
    if (steps.length === 0) return;
    await host.apply(steps, signal);
    this.#held.note(steps);
    this.#peers.done(steps);
    metrics.hostChanged(steps);
    log.info(summaryOf(steps), 'Host network changed');
  }

  async #applyTables(want: Ruleset, signal: AbortSignal): Promise<void> {
    this.#tables ??= await this.#parts.tables.observe(signal);
    await this.#writeTables(planNftables(want, this.#tables), signal);
    this.#tables = want.tables.map(observedOf);
  }

  async #writeTables(steps: readonly NftStep[], signal: AbortSignal): Promise<void> {
    const { log, metrics, tables } = this.#parts;
    if (steps.length === 0) return;
    await tables.apply(steps, signal);
    metrics.tablesChanged(steps);
    log.info({ steps: steps.map(({ op }) => op) }, 'Masquerade table changed');
  }
}

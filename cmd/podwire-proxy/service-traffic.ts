/**
 * Packets and bytes of Services, as connection tracking counts them. A rule or set for it would cost
 * every packet of an established connection a lookup; this costs it an addition.
 */
import { FlowTally } from '#pkg/conntrack/flow-tally.ts';
import { watchTraffic } from '#pkg/conntrack/observe-traffic.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { ServiceAccounts } from '#pkg/proxy/service-accounts.ts';
import { inSlices } from '#pkg/reconcile/slices.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { readSysctl } from '#pkg/sysctl/sysctl.ts';
import type { ServiceTraffic } from './proxy-mode.ts';

const accountingPath = 'net/netfilter/nf_conntrack_acct';
const eventsPath = 'net/netfilter/nf_conntrack_events';

/**
 * Works in the network namespace of the calling thread, where the settings are made already.
 *
 * @throws {AgentError} with the errno name of the call that failed
 */
export function openServiceTraffic(
  sys: Sys,
  log: Pick<Logger, 'warn'>,
): ServiceTraffic & Disposable {
  if (readSysctl(accountingPath) === '0') {
    const path = accountingPath;
    log.warn({ path }, 'Traffic of Services is not counted: expected this setting to be 1');
  }
  if (readSysctl(eventsPath) === '0') {
    const path = eventsPath;
    log.warn({ path }, 'Connections that end count up to the last look: this setting is 0');
  }
  const accounts = new ServiceAccounts();
  const watch = watchTraffic(sys, new FlowTally((flow) => accounts.of(flow)));
  let work: Promise<void> = Promise.resolve();
  let isRefused = false;
  return {
    update: (family, changes) => {
      // At the first write these are all Services.
      work = work.then(() =>
        inSlices(changes, (change) => {
          accounts.update(family, [change]);
        }),
      );
    },
    look: async () => {
      await work;
      try {
        await watch.look();
        isRefused = false;
      } catch (err) {
        // Nobody is to miss everything else that /metrics tells.
        if (!isRefused) log.warn({ err }, 'Traffic of Services is as it was at the last look');
        isRefused = true;
      }
    },
    total: (family, frontend) => accounts.total(family, frontend),
    endpoint: (family, frontend, endpoint) => accounts.endpoint(family, frontend, endpoint),
    get overflows() {
      return watch.overflows;
    },
    [Symbol.dispose]: () => watch[Symbol.dispose](),
  };
}

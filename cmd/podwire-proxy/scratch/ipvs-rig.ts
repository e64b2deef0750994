/** A writer of mode ipvs over a kernel in memory. */
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { messageOf } from '#pkg/errors/agent-error.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { ipvsOptions } from '#pkg/proxy/testdata/ipvs-trace.ts';
import { portsOf, type Cluster } from '#pkg/proxy/testdata/records.ts';
import { createIpvsWriter, type IpvsWriter } from '#cmd/podwire-proxy/ipvs-writer.ts';
import type { WriteReport } from '#cmd/podwire-proxy/proxy-mode.ts';
import { FakeIpvsKernel } from './fake-ipvs-kernel.ts';
import { noRules as rules } from './no-rules.ts';

const signal = new AbortController().signal;

export class IpvsRig {
  readonly kernel = new FakeIpvsKernel();
  readonly clock = new FakeClock(1_000_000);
  /** "service: why" */
  readonly parked: string[] = [];
  masqueradeAll = false;
  otherHosts: ReadonlySet<string> | undefined = new Set();
  writer = this.createWriter();

  /** As that of a new process: it knows nothing. */
  createWriter(observeIntervalMs = 3_600_000): IpvsWriter {
    return createIpvsWriter({
      family: 'ip',
      driver: this.kernel,
      rules,
      options: (_, own) =>
        ipvsOptions({
          masqueradeAll: this.masqueradeAll,
          localDetector: { kind: 'none' },
          nodePortAddresses: own,
          hostAddresses: own,
          nodeAddress: own[0],
        }),
      otherHosts: () => this.otherHosts,
      isOurs: () => true,
      observeIntervalMs,
      onParked: ({ name }, error) => this.parked.push(`${name}: ${messageOf(error)}`),
      clock: this.clock,
      log: silentLogger,
    });
  }

  /** @param changed keys of ports; all when there is none */
  async write(to: Cluster, ...changed: string[]): Promise<WriteReport> {
    const keys = changed.length === 0 ? ('all' as const) : new Set(changed);
    return await this.writer.write({ ports: portsOf(to), changed: keys, node: undefined }, signal);
  }
}

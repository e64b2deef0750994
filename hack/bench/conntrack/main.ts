/**
 * What it costs to find stale UDP flows in a large connection tracking table, and how long the
 * event loop waits for it:
 *
 *     node --disable-warning=ExperimentalWarning hack/bench/conntrack/main.ts [entries]
 *
 * Needs root; works in network namespaces of its own. All namespaces share the kernel's one hash
 * table and each may hold nf_conntrack_max entries, which the bench does not change: what is more
 * goes into other namespaces, so that walking the table costs as much as if it were all in one.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { readFileSync } from 'node:fs';
import { openConntrack, removeFlows } from '#pkg/conntrack/apply.ts';
import type { FlowSearch } from '#pkg/conntrack/flow.ts';
import { entryCreation } from '#pkg/conntrack/testdata/entry.ts';
import { NETLINK_NETFILTER } from '#pkg/netlink/constants.ts';
import { NetlinkSocket, type NetlinkRequest } from '#pkg/netlink/socket.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { openSys } from '#pkg/sys/open-sys.ts';

const services = 500;
const servers = 100;
const sys = await openSys();
const die = (error: Error): never => {
  throw error;
};

async function main([given = '100000']: readonly string[]): Promise<void> {
  const entries = Number(given);
  const most = Number(readFileSync('/proc/sys/net/netfilter/nf_conntrack_max', 'utf8'));
  await using stack = new AsyncDisposableStack();
  const made: { readonly netns: ScratchNetns; readonly count: number }[] = [];
  for (let left = entries; left > 0; left -= most) {
    const netns = stack.use(await createScratchNetns('pw-bench-ct'));
    made.push({ netns, count: Math.min(left, most - 1_000) });
    fill(netns, made.at(-1)?.count ?? 0);
  }
  const [first] = made;
  if (first === undefined) return;
  const { netns, count } = first;
  console.log(`${entries} entries in all, ${count} of them in the namespace that is searched`);
  const gone = new Set(['10.3.0.7:53']);
  const none = new Set<string>();
  await measure(netns, 'one service, nothing stale', { destinations: 1, gone: none });
  await measure(netns, 'one service, nothing stale', { destinations: 1, gone: none });
  await measure(netns, 'four services, nothing stale', { destinations: 4, gone: none });
  await measure(netns, 'all services, nothing stale', { destinations: services, gone: none });
  await measure(netns, 'one service, one server of it gone', { destinations: 1, gone });
  await measure(netns, 'all services, one server of each gone', { destinations: services, gone });
}

async function measure(
  netns: ScratchNetns,
  title: string,
  wanted: { readonly destinations: number; readonly gone: ReadonlySet<string> },
): Promise<void> {
  using kernel = withNetns(sys, netns.path, () => openConntrack(sys), die);
  const search: FlowSearch = {
    family: 'ip',
    protocol: 17,
    destinations: Array.from({ length: wanted.destinations }, (_, i) => ({
      addresses: [`10.96.${i >> 8}.${i & 255}`],
      port: 53,
    })),
    isStale: ({ server }) => wanted.gone.has(server),
  };
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const cpu = process.cpuUsage();
  const startedMs = performance.now();
  const removed = await removeFlows(kernel, search, AbortSignal.timeout(600_000));
  const ms = Math.round(performance.now() - startedMs);
  const { system, user } = process.cpuUsage(cpu);
  delay.disable();
  const cpuMs = Math.round((user + system) / 1000);
  const { deleted, listed, requests } = removed;
  const loop = `event loop held up ${Math.round(delay.max / 1e5) / 10} ms at most`;
  console.log(`${title}: ${ms} ms (CPU ${cpuMs}), ${loop}`);
  console.log(`    ${requests} requests, ${listed} entries listed, ${deleted} deleted`);
}

/** Flows from as many clients to `services` addresses, answered by `servers` pods. */
function fill(netns: ScratchNetns, count: number): void {
  const open = (): NetlinkSocket => new NetlinkSocket(sys, NETLINK_NETFILTER);
  using socket = withNetns(sys, netns.path, open, die);
  const template = entryCreation({
    protocol: 'udp',
    client: '1.2.3.4:4386',
    destination: '5.6.7.8:53',
    server: '9.10.11.12:53',
  });
  const batch = 1_000;
  for (let start = 0; start < count; start += batch) {
    const length = Math.min(batch, count - start);
    const requests = Array.from({ length }, (_, i) => flow(template, start + i));
    for (const { error } of socket.batch(requests)) if (error !== undefined) throw error;
  }
}

/** The template with other addresses: encoding a million anew would take minutes. */
function flow(template: NetlinkRequest, n: number): NetlinkRequest {
  const client = [0x0a010000 + (n % 60_000), 0x01020304] as const;
  const service = [0x0a600000 + (n % services), 0x05060708] as const;
  const server = [0x0a030000 + (Math.floor(n / services) % servers), 0x090a0b0c] as const;
  const port = 1024 + Math.floor(n / 60_000);
  const body = template.body.map((part) => {
    const bytes = Buffer.from(part);
    for (const [value, marker] of [client, service, server]) {
      const at = bytes.indexOf(Buffer.from(marker.toString(16).padStart(8, '0'), 'hex'));
      if (at !== -1) bytes.writeUInt32BE(value, at);
    }
    const at = bytes.indexOf(Buffer.from('1122', 'hex'));
    if (at !== -1) bytes.writeUInt16BE(port, at);
    return bytes;
  });
  return { ...template, body };
}

await main(process.argv.slice(2));

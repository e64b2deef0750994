/** Somebody flushes the ruleset; the next ADD puts back what it held, whatever else runs then. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { AttachmentStore } from '#pkg/cni/attachment-store.ts';
import { parseNetworkConfig } from '#pkg/cni/config.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { openNodeSys } from '#pkg/sys/node-ffi.ts';
import type { CniSystem } from '#plugins/cni-system.ts';
import { hostLocalPlugin } from '#plugins/ipam/host-local.ts';
import { recordDocument, type AttachmentRecord } from '#plugins/podwire/attachment-record.ts';
import { deletePod } from '#plugins/podwire/delete-pod.ts';
import { installPod, type PacketFilter } from '#plugins/podwire/packet-filter.ts';
import { podTools, type PodTools } from '#plugins/podwire/pod-tools.ts';
import { programRunner } from './run-program.ts';

const sys = openNodeSys();
const system: CniSystem = {
  sys,
  runProgram: programRunner(),
  delegates: new Map([['host-local', hostLocalPlugin(sys)]]),
  die(error) {
    throw error;
  },
};
let netns: ScratchNetns;
let directory: string;
beforeEach(async () => {
  netns = await createScratchNetns('pw-lost');
  directory = mkdtempSync(join(tmpdir(), 'podwire-lost-'));
});
afterEach(async () => {
  await netns[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true });
});

function inNode(work: () => void): void {
  withNetns(sys, netns.path, work, system.die);
}

function requestOf(containerId: string): Parameters<typeof deletePod>[1] {
  const config = parseNetworkConfig(
    JSON.stringify({
      cniVersion: '1.1.0',
      name: 'pods',
      type: 'podwire',
      stateDir: join(directory, 'state'),
      ipam: { type: 'host-local', dataDir: join(directory, 'networks') },
    }),
  );
  const environment = { PATH: process.env['PATH'] };
  return { config, containerId, ifName: 'eth0', netns: undefined, args: '', path: [], environment };
}

function podOf(containerId: string, host: number, hostPort: number): AttachmentRecord {
  return {
    network: 'pods',
    containerId,
    ifName: 'eth0',
    mode: 'bridge',
    hostLink: `veth${host}`,
    reachedBy: 'cni0',
    mac: `0a:58:0a:f4:01:0${host}`,
    addresses: [parsePrefix(`10.244.1.${host}/24`)],
    hostPorts: [{ protocol: 'tcp', hostPort, containerPort: 80, hostIp: undefined }],
    antiSpoofing: true,
    iptables: false,
  };
}

/** What ADD does with the packet filter; `meanwhile` changes what it works with. */
function install(
  record: AttachmentRecord,
  meanwhile: (filter: PacketFilter) => Partial<PacketFilter> = () => ({}),
): void {
  const { store, openFilter } = podTools(system, requestOf(record.containerId));
  store.put(record, recordDocument(record));
  using filter = openFilter();
  const { socket } = filter;
  installPod({ ...filter, socket, ...meanwhile(filter) }, record);
}

/** DEL of a pod whose store does something else in places. */
function del(
  containerId: string,
  other: (store: AttachmentStore) => Partial<AttachmentStore>,
): void {
  const tools: PodTools = podTools(system, requestOf(containerId));
  deletePod({ ...tools, store: { ...tools.store, ...other(tools.store) } }, requestOf(containerId));
}

const whole = (): object => ({});

function killNow(): never {
  throw new Error('killed');
}

/** Who has elements in the kernel's tables, and how many. */
async function owners(): Promise<Readonly<Record<string, number>>> {
  const { stdout } = await netns.exec('nft', ['list', 'ruleset']);
  const names = [...stdout.matchAll(/comment "pods (\w+) eth0"/g)].map(([, name = '']) => name);
  return Object.fromEntries(
    [...new Set(names)].map((name) => [name, names.filter((other) => other === name).length]),
  );
}

const [first, going, added] = [podOf('first', 2, 81), podOf('going', 3, 82), podOf('added', 4, 83)];

describe('a table that was lost', () => {
  it('comes back with every pod', async () => {
    inNode(() => [first, going].forEach((pod) => install(pod)));
    const before = await owners();
    await netns.exec('nft', ['flush', 'ruleset']);
    expect(await owners()).toEqual({});
    inNode(() => install(added));
    expect(await owners()).toEqual({ ...before, added: before['first'] });
  });

  it.each<[string, (add: () => void) => (filter: PacketFilter) => Partial<PacketFilter>]>([
    [
      'comes and goes after the records were read',
      (remove) => (filter) => ({
        everyRecord() {
          const records = filter.everyRecord();
          remove();
          return records;
        },
      }),
    ],
    [
      'comes when its elements are back',
      (remove) => (filter) => ({
        isKept(record) {
          if (record.containerId === 'going') remove();
          return filter.isKept(record);
        },
      }),
    ],
  ])('does not bring back a pod whose DEL %s', async (_, meanwhile) => {
    inNode(() => [first, going].forEach((pod) => install(pod)));
    const before = await owners();
    await netns.exec('nft', ['flush', 'ruleset']);
    let removed = false;
    const remove = (): void => {
      if (!removed) del('going', whole);
      removed = true;
    };
    inNode(() => install(added, meanwhile(remove)));
    expect(removed).toBe(true);
    expect(await owners()).toEqual({ first: before['first'], added: before['first'] });
  });

  it('does not bring back a pod whose DEL has deleted its elements and not yet its record', async () => {
    inNode(() => [first, going].forEach((pod) => install(pod)));
    const before = await owners();
    await netns.exec('nft', ['flush', 'ruleset']);
    inNode(() =>
      del('going', (store) => ({
        delete(key) {
          install(added);
          store.delete(key);
        },
      })),
    );
    expect(await owners()).toEqual({ first: before['first'], added: before['first'] });
  });

  it('does not bring back a pod whose DEL was killed, and the next DEL finishes', async () => {
    inNode(() => [first, going].forEach((pod) => install(pod)));
    const before = await owners();
    const killed = new Error('killed');
    const kill = (): never => {
      throw killed;
    };
    expect(() => inNode(() => del('going', () => ({ delete: kill })))).toThrow(killed);
    await netns.exec('nft', ['flush', 'ruleset']);
    inNode(() => install(added));
    expect(await owners()).toEqual({ first: before['first'], added: before['first'] });
    const { store } = podTools(system, requestOf('going'));
    expect([store.has(going), store.isKept(going)]).toEqual([true, false]);
    inNode(() => del('going', whole));
    expect(store.has(going)).toBe(false);
  });

  it.each([
    ['before it made a table', 0],
    ['when it had made one', 1],
    ['when it had made both', 2],
  ])('comes back with every pod although the ADD was killed %s', async (_, made) => {
    inNode(() => [first, going].forEach((pod) => install(pod)));
    const before = await owners();
    await netns.exec('nft', ['flush', 'ruleset']);
    const killed = ({ run }: PacketFilter): Partial<PacketFilter> => {
      let runs = 0;
      return {
        run(...args) {
          if (runs === made) killNow();
          runs++;
          const said = run(...args);
          return runs === made ? killNow() : said;
        },
      };
    };
    expect(() => inNode(() => install(podOf('victim', 5, 85), killed))).toThrow('killed');
    // In the first table each has its port, itself and the link it is reached by: all, or no table.
    const left = [{}, { first: 3, going: 3 }, before];
    expect(await owners()).toEqual(left[made]);
    inNode(() => {
      del('victim', whole);
      install(added);
    });
    expect(await owners()).toEqual({ ...before, added: before['first'] });
  });

  it('does not keep a pod whose DEL ran while the ADD that made it was killed', async () => {
    inNode(() => [first, going].forEach((pod) => install(pod)));
    const before = await owners();
    await netns.exec('nft', ['flush', 'ruleset']);
    const killed = ({ run }: PacketFilter): Partial<PacketFilter> => {
      let runs = 0;
      return {
        run(...args) {
          if (runs++ === 0) del('going', whole);
          const said = run(...args);
          return runs === 1 ? killNow() : said;
        },
      };
    };
    expect(() => inNode(() => install(podOf('victim', 5, 85), killed))).toThrow('killed');
    expect(await owners()).toEqual({ first: 3, going: 3 });
    inNode(() => {
      del('victim', whole);
      // With the host port that the pod had.
      install(podOf('added', 4, 82));
    });
    expect(await owners()).toEqual({ first: before['first'], added: before['first'] });
  });

  it('comes back with pods whose links have names that nft has no text for', async () => {
    const odd = { ...first, hostLink: 'veth"2*' };
    inNode(() => [odd, going].forEach((pod) => install(pod)));
    const before = await owners();
    await netns.exec('nft', ['flush', 'ruleset']);
    inNode(() => install(added));
    expect(await owners()).toEqual({ ...before, added: before['first'] });
  });

  it('comes back with every pod also where nft refuses one as text', async () => {
    inNode(() => [first, going].forEach((pod) => install(pod)));
    const before = await owners();
    await netns.exec('nft', ['flush', 'ruleset']);
    const refusing = ({ run }: PacketFilter): Partial<PacketFilter> => ({
      run: (file, args, input = '') =>
        run(file, args, input.replace('veth2', 'a name longer than there may be')),
    });
    inNode(() => install(added, refusing));
    expect(await owners()).toEqual({ ...before, added: before['first'] });
  });

  it('does not give the host port of a pod that runs to the one that is added', async () => {
    inNode(() => install(first));
    const before = await owners();
    for (const hostIp of [undefined, parsePrefix('192.0.2.1/32').address]) {
      await netns.exec('nft', ['flush', 'ruleset']);
      const rival = podOf('rival', 5, 81);
      const hostPorts = rival.hostPorts.map((port) => ({ ...port, hostIp }));
      expect(() => inNode(() => install({ ...rival, hostPorts }))).toThrow('Cannot map host port');
      inNode(() => del('rival', whole));
      expect(await owners()).toEqual(before);
    }
  });
});

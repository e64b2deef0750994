import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { openNodeSys } from '#pkg/sys/node-ffi.ts';
import {
  addElements,
  deleteElements,
  getElements,
  listElements,
  openNetfilterSocket,
  type ElementChange,
} from './nf-tables.ts';
import {
  addressField,
  concatFields,
  interfaceField,
  macField,
  portField,
  protocolField,
  type SetName,
} from './set-element.ts';

const sys = openNodeSys();
let netns: ScratchNetns;
let socket: NetlinkSocket;

function die(error: Error): never {
  throw error;
}

beforeEach(async () => {
  netns = await createScratchNetns('pw-nft');
  await netns.exec('nft', ['-f', '-'], {
    input: `table inet podwire-test {
      map ports { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
      map ports6 { type inet_proto . inet_service : ipv6_addr . inet_service; }
      set macs { type ifname . ether_addr; }
    }`,
  });
  socket = withNetns(sys, netns.path, () => openNetfilterSocket(sys), die);
});
afterEach(async () => {
  socket[Symbol.dispose]();
  await netns[Symbol.asyncDispose]();
});

function setNamed(set: string): SetName {
  return { family: 'inet', table: 'podwire-test', set };
}

function port(hostPort: number, comment = 'pods one eth0'): ElementChange {
  const ip = addressField(parseAddress('192.0.2.1'));
  return {
    set: setNamed('ports'),
    element: {
      key: concatFields([ip, protocolField(6), portField(hostPort)]),
      data: concatFields([addressField(parseAddress('10.244.1.5')), portField(8080)]),
      comment,
    },
    exclusive: true,
  };
}

const mac: ElementChange = {
  set: setNamed('macs'),
  element: { key: concatFields([interfaceField('veth0'), macField('0a:58:0a:f4:01:05')]) },
};

async function listed(): Promise<string> {
  const { stdout } = await netns.exec('nft', ['list', 'ruleset']);
  return stdout.replaceAll(/\s+/g, ' ');
}

const codes = (errors: readonly ({ code: string } | undefined)[]): (string | undefined)[] =>
  errors.map((error) => error?.code);

describe('addElements()', () => {
  it('adds what nft then shows', async () => {
    const ports6: ElementChange = {
      set: setNamed('ports6'),
      element: {
        key: concatFields([protocolField(132), portField(443)]),
        data: concatFields([addressField(parseAddress('fd00::5')), portField(8443)]),
      },
    };
    expect(codes(addElements(socket, [port(80), mac, ports6]))).toEqual(Array(3).fill(undefined));
    const text = await listed();
    expect(text).toContain('192.0.2.1 . tcp . 80 comment "pods one eth0" : 10.244.1.5 . 8080');
    expect(text).toContain('"veth0" . 0a:58:0a:f4:01:05');
    expect(text).toContain('sctp . 443 : fd00::5 . 8443');
  });

  it('adds all or nothing, and says which are there already', () => {
    addElements(socket, [port(80)]);
    const errors = addElements(socket, [port(79), port(80, 'pods two eth0'), port(81)]);
    expect(codes(errors)).toEqual([undefined, 'EEXIST', undefined]);
    expect(listElements(socket, setNamed('ports'))).toEqual([port(80).element]);
  });

  it('says which sets are not there', () => {
    const nowhere = { ...mac, set: { ...mac.set, table: 'podwire-none' } };
    expect(codes(addElements(socket, [mac, nowhere]))).toEqual([undefined, 'ENOENT']);
    expect(listElements(socket, mac.set)).toEqual([]);
  });

  it('adds again what is not exclusive', () => {
    addElements(socket, [mac]);
    expect(codes(addElements(socket, [mac]))).toEqual([undefined]);
  });

  it('fails as a whole where the kernel looks at none of it', () => {
    using closed = withNetns(sys, netns.path, () => openNetfilterSocket(sys), die);
    const huge = Array.from({ length: 4000 }, (_, i) => port(i + 1));
    expect(() => addElements(closed, huge)).toThrow(expect.objectContaining({ code: 'EMSGSIZE' }));
    expect(listElements(socket, setNamed('ports'))).toEqual([]);
  });
});

describe('deleteElements()', () => {
  it('deletes; what is not there is deleted', () => {
    addElements(socket, [port(80), port(81), port(82)]);
    const nowhere = { ...mac, set: { ...mac.set, table: 'podwire-none' } };
    deleteElements(socket, [port(80), port(9), nowhere, port(82)]);
    expect(listElements(socket, setNamed('ports'))).toEqual([port(81).element]);
    deleteElements(socket, [port(80)]);
  });
});

describe('getElements()', () => {
  it('reads one by one, with comment and data', () => {
    addElements(socket, [port(80)]);
    const nowhere = { ...mac, set: { ...mac.set, set: 'none' } };
    expect(getElements(socket, [mac, port(80), nowhere])).toEqual([
      undefined,
      port(80).element,
      undefined,
    ]);
  });
});

describe('listElements()', () => {
  it('lists many, and nothing of a table that is not there', () => {
    // As long as nft takes one.
    const comment = 'x'.repeat(128);
    const many = Array.from({ length: 300 }, (_, i) => port(i + 1, comment));
    expect(addElements(socket, many).every((error) => error === undefined)).toBe(true);
    expect(listElements(socket, setNamed('ports'))).toHaveLength(300);
    expect(listElements(socket, setNamed('ports'))[0]?.comment).toBe(comment);
    expect(listElements(socket, { ...mac.set, table: 'podwire-none' })).toEqual([]);
  });
});

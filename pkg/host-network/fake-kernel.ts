/**
 * A host's network in memory that behaves as the kernel does where plan and apply depend on it:
 * what exists already is EEXIST, what does not is ENODEV or ESRCH, and a device that goes takes
 * everything on it along. For tests of what happens when calls fail.
 */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { isDevice, type Device } from './device.ts';
import {
  objectKey,
  objectLink,
  podwireAlias,
  podwireRouteProtocol,
  type HostObject,
} from './object.ts';
import type { HostKernel } from './rtnetlink.ts';
import type { Step } from './step.ts';

export class FakeHostKernel implements HostKernel {
  readonly #objects = new Map<string, HostObject>();
  /** Fails the call with this number (the first is 1) once, with EIO. */
  failAt = 0;
  /** Calls so far: a reading, or one step of a writing. */
  calls = 0;

  links(): ReturnType<HostKernel['links']> {
    this.#call();
    return this.#devices().map((link, i) => ({
      index: i + 1,
      name: link.link,
      mac: link.kind === 'vxlan' ? link.mac : undefined,
      mtuBytes: link.mtuBytes,
      up: true,
      running: true,
      promiscuous: false,
      allMulticast: false,
      txQueueLength: 1000,
      kind: kindOf(link),
      alias: podwireAlias,
      masterIndex: undefined,
      peerIndex: undefined,
      peerNetnsId: undefined,
      hairpin: undefined,
      mode: undefined,
      vlanFiltering: undefined,
      vxlan:
        link.kind === 'vxlan'
          ? {
              vni: link.vni,
              port: link.port,
              local: link.local,
              underlayIndex: undefined,
              learning: false,
            }
          : undefined,
      ...(link.kind === 'tunnel'
        ? {
            tunnel: {
              local: link.local,
              remote: undefined,
              byRoute: link.local === undefined,
            },
          }
        : {}),
    }));
  }

  addresses(linkIndex: number): ReturnType<HostKernel['addresses']> {
    this.#call();
    return this.#on(this.#ofKind('address'), linkIndex).map(({ prefix }) => ({
      linkIndex,
      prefix,
      permanent: true,
      tentative: false,
      dadFailed: false,
      secondary: false,
      deprecated: false,
    }));
  }

  neighbors(
    ...[family, linkIndex]: Parameters<HostKernel['neighbors']>
  ): ReturnType<HostKernel['neighbors']> {
    this.#call();
    return this.#on(this.#ofKind('neighbor'), linkIndex)
      .filter(({ address }) => address.family === family)
      .map(({ address, mac }) => ({ linkIndex, address, mac, permanent: true }));
  }

  forwarding(linkIndex: number): ReturnType<HostKernel['forwarding']> {
    this.#call();
    return this.#on(this.#ofKind('fdb'), linkIndex).map(({ mac, remote }) => ({
      linkIndex,
      mac,
      remote,
      permanent: true,
      special: false,
    }));
  }

  routes(
    ...[family, protocol]: Parameters<HostKernel['routes']>
  ): ReturnType<HostKernel['routes']> {
    this.#call();
    if (protocol !== podwireRouteProtocol) return [];
    return this.#ofKind('route')
      .filter(({ destination }) => destination.address.family === family)
      .map(({ destination, via, link, onLink, encap }) => ({
        destination,
        ...(via === undefined ? {} : { gateway: via }),
        linkIndex: this.#names().indexOf(link) + 1,
        onLink,
        ...(encap === undefined ? {} : { encap }),
        protocol,
      }));
  }

  wireguard(name: string): ReturnType<HostKernel['wireguard']> {
    this.#call();
    const device = this.#ofKind('wireguard').find(({ link }) => link === name);
    const peers = this.#ofKind('wireguard-peer').filter(({ link }) => link === name);
    return { publicKey: device?.publicKey ?? '', port: device?.port ?? 0, peers };
  }

  sysctl(path: string): string | undefined {
    this.#call();
    const object = this.#objects.get(`sysctl ${path}`);
    return object?.kind === 'sysctl' ? `${object.value}\n` : '0\n';
  }

  write(steps: readonly Step[]): (Error | undefined)[] {
    return steps.map((step) => {
      try {
        this.#call();
        if (step.op === 'put') this.#put(step.object, step.replaces !== undefined);
        else this.#delete(step.object);
        return undefined;
      } catch (error) {
        return error as Error;
      }
    });
  }

  #call(): void {
    this.calls += 1;
    if (this.calls === this.failAt) throw new AgentError('EIO', 'Cannot do it: the fake fails');
  }

  #put(object: HostObject, replace: boolean): void {
    const link = objectLink(object);
    if (isDevice(object)) {
      if (!replace && this.#names().includes(object.link)) throw errno('EEXIST');
    } else if (link !== undefined && !this.#names().includes(link)) {
      throw errno('ENODEV');
    }
    const overwrites = ['neighbor', 'fdb', 'wireguard-peer'].includes(object.kind);
    const exists = this.#objects.has(objectKey(object));
    if (exists && !replace && !overwrites && object.kind !== 'sysctl') throw errno('EEXIST');
    this.#objects.set(objectKey(object), object);
  }

  #delete(object: HostObject): void {
    if (!this.#objects.delete(objectKey(object))) {
      throw errno(isDevice(object) ? 'ENODEV' : 'ESRCH');
    }
    if (!isDevice(object)) return;
    for (const [key, other] of this.#objects) {
      if (objectLink(other) === object.link) this.#objects.delete(key);
    }
  }

  #ofKind<K extends HostObject['kind']>(kind: K): Extract<HostObject, { kind: K }>[] {
    const is = (object: HostObject): object is Extract<HostObject, { kind: K }> =>
      object.kind === kind;
    return [...this.#objects.values()].filter(is);
  }

  #on<T extends { readonly link: string }>(objects: readonly T[], linkIndex: number): T[] {
    const name = this.#names()[linkIndex - 1];
    return objects.filter(({ link }) => link === name);
  }

  #names(): string[] {
    return this.#devices().map(({ link }) => link);
  }

  #devices(): Device[] {
    return [...this.#objects.values()].filter(isDevice);
  }
}

function kindOf(link: Device): string {
  if (link.kind !== 'tunnel') return link.kind;
  return link.local === undefined ? 'ip6tnl' : 'ipip';
}

function errno(code: string): AgentError {
  return new AgentError(code, `Cannot do it: ${code}`);
}

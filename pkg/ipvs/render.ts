/** Steps and virtual servers as text that `ipvsadm --restore` reads. */
import type { IpvsStep } from './plan.ts';
import { endpointText, serverKey, type RealServer, type VirtualServer } from './virtual-server.ts';

/** The input of `ipvsadm --restore`, a line a step. */
export function renderIpvsRestore(steps: readonly IpvsStep[]): string {
  return steps.map((step) => `${lineOf(step)}\n`).join('');
}

/** Virtual servers as `ipvsadm --save --numeric` prints them, sorted. */
export function renderVirtualServers(servers: Iterable<VirtualServer>): string {
  return [...servers]
    .toSorted((a, b) => (serverKey(a) < serverKey(b) ? -1 : 1))
    .flatMap((server) => [
      `-A ${settings(server)}`,
      ...server.realServers.map((real) => `-a ${serverKey(server)} ${realOptions(real)}`),
    ])
    .map((line) => `${line}\n`)
    .join('');
}

function lineOf(step: IpvsStep): string {
  switch (step.op) {
    case 'add-server':
      return `-A ${settings(step.server)}`;
    case 'edit-server':
      return `-E ${settings(step.server)}`;
    case 'delete-server':
      return `-D ${step.key}`;
    case 'add-real':
      return `-a ${step.key} ${realOptions(step.real)}`;
    case 'edit-real':
      return `-e ${step.key} ${realOptions(step.real)}`;
    case 'delete-real':
      return `-d ${step.key} -r ${endpointText(step.real)}`;
  }
}

function settings(server: VirtualServer): string {
  const { flags, persistenceSeconds, scheduler } = server;
  const words = [serverKey(server), `-s ${scheduler}`];
  if (persistenceSeconds > 0) words.push(`-p ${persistenceSeconds}`);
  if (flags !== '') words.push(`-b ${flags}`);
  return words.join(' ');
}

function realOptions(real: RealServer): string {
  return `-r ${endpointText(real)} -m -w ${real.weight}`;
}

/**
 * A thread of the server: accepts one caller after another and does what it asks, synchronously. As
 * many callers are served at once as threads wait in accept(2); the kernel's queue is the only one.
 *
 * "Taken" commits both sides: a caller that does not hear it in time makes sure that it cannot be said
 * any more and does the work itself, and nothing has been done here.
 */
import { statSync } from 'node:fs';
import { isErrno } from '#pkg/errors/agent-error.ts';
import type { CniAnswer } from '#pkg/cni/protocol.ts';
import type { ListenSys } from '#pkg/sys/listen-sys.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { openConnection, type Connection } from './connection.ts';
import {
  declined,
  encodeAnswer,
  headerBytes,
  nothing,
  parseRequest,
  requestLength,
  taken,
  type LauncherRequest,
} from './wire.ts';
import type { WorkerState } from './worker-state.ts';

export interface CniService {
  readonly sys: Sys;
  readonly listenSys: ListenSys;
  readonly listenFd: number;
  /** Which of two groups of threads this one belongs to: those for ADD, or those for DEL. */
  readonly pool: number;
  /** A number no other thread has. */
  readonly worker: number;
  readonly state: WorkerState;
  /** Whether it can act as what the launcher is called. */
  readonly knows: (name: string) => boolean;
  /** Does the work. */
  readonly answer: (request: LauncherRequest) => Promise<CniAnswer>;
  /** The last thread that waited has a caller: whoever comes next will wait. */
  readonly onBusy: () => void;
  /** No caller came for as long as the socket's time-out; false ends the thread. */
  readonly onIdle: () => boolean;
  readonly onProblem: (problem: string) => void;
}

/** Serves until the listening socket is shut down, or `onIdle` says so. */
export async function serveCni(service: CniService): Promise<void> {
  const { sys, listenSys, state, worker } = service;
  for (;;) {
    const fd = accept(service);
    if (fd === undefined) return;
    state.setConnection(worker, fd);
    try {
      using connection = openConnection(sys, listenSys, fd);
      await serveCaller(service, connection);
    } finally {
      state.setConnection(worker, undefined);
    }
  }
}

/** The next caller; undefined when there will be none. */
function accept(service: CniService): number | undefined {
  const { listenSys, listenFd, state, pool } = service;
  for (;;) {
    state.waiting(pool);
    let fd: number;
    try {
      fd = listenSys.accept(listenFd);
    } catch (error) {
      state.taken(pool);
      if (isErrno(error, 'EINVAL')) return undefined;
      if (isErrno(error, 'EAGAIN') && !service.onIdle()) return undefined;
      if (isErrno(error, 'EAGAIN') || isErrno(error, 'ECONNABORTED')) continue;
      throw error;
    }
    if (state.taken(pool)) service.onBusy();
    return fd;
  }
}

async function serveCaller(service: CniService, connection: Connection): Promise<void> {
  const uid = connection.peerUid();
  if (uid !== 0) return service.onProblem(`Refused a caller with user ID ${uid}: expected root`);
  const body = receiveRequest(connection);
  if (body === undefined) return;
  const request = parseRequest(body);
  const problem = request === undefined ? 'not in our format' : differenceOf(request);
  if (request === undefined || problem !== undefined || !service.knows(request.name)) {
    service.onProblem(`Left a call to the caller's own process: ${problem ?? 'unknown plugin'}`);
    connection.send(declined);
    return;
  }
  if (connection.send(taken)) await serveRequest(service, connection, request);
}

/** Most requests are far below this, and come in one piece. */
const usualBytes = 16 * 1024;

/** All of a request after its header; undefined for none, or half of one. */
function receiveRequest(connection: Connection): Uint8Array | undefined {
  let bytes = new Uint8Array(usualBytes);
  let end = headerBytes;
  for (let at = 0; at < end;) {
    const got = connection.receive(bytes.subarray(at));
    if (got === undefined) return undefined;
    at += got;
    if (end > headerBytes || at < headerBytes) continue;
    const length = requestLength(bytes.subarray(0, headerBytes));
    if (length === undefined) return undefined;
    end = headerBytes + length;
    if (end <= bytes.byteLength) continue;
    const whole = new Uint8Array(end);
    whole.set(bytes.subarray(0, at));
    bytes = whole;
  }
  return bytes.subarray(headerBytes, end);
}

/** Where a name in the request means another thing here than to the caller; undefined if nowhere. */
function differenceOf({ view, environment }: LauncherRequest): string | undefined {
  const netns = environment['CNI_NETNS'] ?? '';
  if (view.root !== identityOf('/')) return 'it sees other files';
  if (view.ownNetns !== identityOf('/proc/thread-self/ns/net')) {
    return 'it is in another network namespace';
  }
  const podNetns = netns === '' ? nothing : identityOf(netns);
  return view.podNetns === podNetns ? undefined : `it sees something else at ${netns}`;
}

function identityOf(path: string): string {
  try {
    const { dev, ino } = statSync(path, { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    return nothing;
  }
}

async function serveRequest(
  service: CniService,
  connection: Connection,
  request: LauncherRequest,
): Promise<void> {
  const { environment } = request;
  // A runtime that gave an ADD up sends the DEL at once. It must find all of that ADD, or none.
  using _ = service.state.lockContainer(service.worker, environment['CNI_CONTAINERID'] ?? '');
  if (!connection.isOpen()) return;
  const answer = await service.answer(request);
  const told = connection.send(encodeAnswer(answer));
  const added = environment['CNI_COMMAND'] === 'ADD' && answer.exitCode === 0;
  if (!added || told) return;
  // Nobody got the result, and the DEL that follows may have been done already, by another process.
  await service.answer({ ...request, environment: { ...environment, CNI_COMMAND: 'DEL' } });
  service.onProblem(
    `Took back an ADD of ${environment['CNI_CONTAINERID']}: its caller had gone away`,
  );
}

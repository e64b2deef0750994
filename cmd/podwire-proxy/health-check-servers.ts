/**
 * Listeners on the health check node ports of Services. A dual-stack Service is asked for in both
 * families; each listens on addresses of its own, so that they do not fight for the port.
 */
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { messageOf } from '#pkg/errors/agent-error.ts';
import { formatBindAddress } from '#pkg/health/bind-address.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { Logger } from '#pkg/log/logger.ts';
import {
  healthCheckAnswer,
  healthCheckListeners,
  healthCheckPorts,
  type HealthCheckListener,
  type HealthCheckPort,
} from '#pkg/proxy/health-check-ports.ts';
import type { ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import type { PortChange } from '#pkg/proxy/service-model.ts';
import type { AfterWrite } from './round.ts';

export interface HealthCheckServers extends AsyncDisposable {
  /** What the round tells after a family was written. Never throws. */
  readonly afterWrite: AfterWrite;
  /** Resolves when all is open and closed as last told, but for ports that could not be opened. */
  settled(): Promise<void>;
}

export interface HealthCheckServersParts {
  /** Where node ports of a family are to answer: addresses of this node, or all of them. */
  readonly nodePortAddresses: (family: Family) => 'all' | readonly string[];
  /** Whether the proxy does its work: asked at each request. */
  readonly isProxyHealthy: () => boolean;
  /** Tells the Service's owner. Never throws. */
  readonly report: (service: HealthCheckPort, message: string) => void;
  readonly nodeName: string;
  readonly log: Pick<Logger, 'debug' | 'info' | 'warn'>;
}

interface Opened {
  readonly server: Server;
  /** Replaced when the Service's endpoints change, or when another Service takes over the port. */
  asks: HealthCheckPort;
}

export function createHealthCheckServers(parts: HealthCheckServersParts): HealthCheckServers {
  const { log } = parts;
  /** Ports of Services with a health check node port: few of many. */
  const checked: Record<Family, Map<string, ProxiedPort>> = { ip: new Map(), ip6: new Map() };
  const asked = new Map<Family, ReadonlyMap<string, HealthCheckPort>>();
  const wanted = new Map<Family, ReadonlyMap<string, HealthCheckListener>>();
  const opened = new Map<string, Opened>();
  /** What was said of listeners that could not be opened: once is enough for the log. */
  const failed = new Map<string, string>();
  let isClosed = false;
  let work: Promise<void> = Promise.resolve();
  let isWaiting = false;

  /** Whether any change concerns health checks. */
  function takeIn(family: Family, changes: readonly PortChange[]): boolean {
    const ports = checked[family];
    let isConcerned = false;
    for (const { key, new: port } of changes) {
      if (ports.delete(key)) isConcerned = true;
      if (port === undefined || port.healthCheckNodePort === 0) continue;
      ports.set(key, port);
      isConcerned = true;
    }
    return isConcerned;
  }

  /** One at a time; what is asked for while one works is taken up by the next. */
  function schedule(): void {
    if (isWaiting) return;
    isWaiting = true;
    work = work.then(async () => {
      isWaiting = false;
      await adjust();
    });
  }

  async function adjust(): Promise<void> {
    const listeners = new Map(isClosed ? [] : [...wanted.values()].flatMap((map) => [...map]));
    // Before any is opened: an address may change its port from one Service to another.
    for (const [key, { server }] of opened) {
      if (listeners.has(key)) continue;
      opened.delete(key);
      await close(server);
    }
    for (const key of failed.keys()) if (!listeners.has(key)) failed.delete(key);
    for (const [key, { address, asks }] of listeners) {
      const open = opened.get(key);
      if (open === undefined) await listen(key, address, asks);
      else open.asks = asks;
    }
  }

  async function listen(key: string, address: string, asks: HealthCheckPort): Promise<void> {
    const server = createServer((request, response) => {
      // Nobody sends a body; one that is not read would block the connection.
      request.resume();
      const answer = healthCheckAnswer(state.asks, parts.isProxyHealthy());
      const length = Buffer.byteLength(answer.body);
      response.writeHead(answer.status, { ...answer.headers, 'Content-Length': length });
      response.end(answer.body);
    });
    const state: Opened = { server, asks };
    const { name, namespace, port } = asks;
    const service = `${namespace}/${name}`;
    const at = formatBindAddress({ host: address, port });
    try {
      server.listen({ host: address, port, ipv6Only: address.includes(':') });
      await once(server, 'listening');
    } catch (err) {
      const reason = messageOf(err);
      const level = failed.get(key) === reason ? 'debug' : 'warn';
      failed.set(key, reason);
      log[level]({ err, service, at }, 'Cannot listen on health check node port, will retry');
      const start = `node ${parts.nodeName} failed to start healthcheck`;
      parts.report(asks, `${start} "${service}" on port ${port}: ${reason}`);
      return;
    }
    failed.delete(key);
    opened.set(key, state);
    server.on('error', (err) => {
      log.warn({ err, service, at }, 'Health check node port failed, will open it again');
      if (opened.get(key) === state) opened.delete(key);
      void close(server);
    });
    log.debug({ service, at }, 'Health check node port opened');
  }

  return {
    afterWrite: (family, changes) => {
      if (takeIn(family, changes)) asked.set(family, healthCheckPorts(checked[family].values()));
      const targets = parts.nodePortAddresses(family);
      const addresses = targets === 'all' ? [family === 'ip' ? '0.0.0.0' : '::'] : targets;
      wanted.set(family, healthCheckListeners(asked.get(family) ?? new Map(), addresses));
      schedule();
    },
    settled: async () => {
      // Work may be added while we wait.
      for (let seen; seen !== work;) {
        seen = work;
        await seen;
      }
    },
    [Symbol.asyncDispose]: async () => {
      isClosed = true;
      schedule();
      await work;
    },
  };
}

async function close(server: Server): Promise<void> {
  // Load balancers keep connections open.
  server.closeAllConnections();
  await new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
}

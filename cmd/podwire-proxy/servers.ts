/** The proxy's two HTTP servers, which may move to other addresses while it runs. */
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '#pkg/clock/clock.ts';
import type { ProxyConfig } from '#pkg/config/proxy-config.ts';
import { messageOf } from '#pkg/errors/agent-error.ts';
import type { BindAddress } from '#pkg/health/bind-address.ts';
import { serveHttp, type Routes } from '#pkg/health/http-server.ts';
import type { Logger } from '#pkg/log/logger.ts';
import type { ProxyEvents } from './proxy-events.ts';

export interface ServersParts {
  readonly config: Pick<
    ProxyConfig,
    'bindAddressHardFail' | 'healthzBindAddress' | 'metricsBindAddress'
  >;
  readonly healthRoutes: Routes;
  readonly statusRoutes: Routes;
  readonly debugRoutes: Routes;
  readonly events: Pick<ProxyEvents, 'ofNode'>;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface Servers {
  /** Serves until the signal aborts. Rejects with ListenFailed if the configuration wants that. */
  run(signal: AbortSignal): Promise<void>;
  /** The configuration has changed: moves what listens elsewhere now. */
  adjust(): void;
}

export function createServers(parts: ServersParts): Servers {
  const { config } = parts;
  const changed = [new Set<() => void>(), new Set<() => void>()] as const;

  /** One server, at whatever address is configured, or none. */
  async function keep(
    server: Omit<Parameters<typeof serveHttp>[0], 'bind' | 'clock' | 'onError'>,
    address: () => BindAddress | undefined,
    moves: Set<() => void>,
    signal: AbortSignal,
  ): Promise<void> {
    while (!signal.aborted) {
      const bind = address();
      const move = new AbortController();
      const check = (): void => {
        if (!isDeepStrictEqual(bind, address())) move.abort();
      };
      moves.add(check);
      const until = AbortSignal.any([signal, move.signal]);
      const onError = (err: unknown, doing: string): void => parts.log.error({ err }, doing);
      try {
        if (bind === undefined) await aborted(until);
        else await serveHttp({ ...server, bind, clock: parts.clock, onError }, until);
      } finally {
        moves.delete(check);
      }
    }
  }

  async function run(signal: AbortSignal): Promise<void> {
    const hardFail = config.bindAddressHardFail;
    const failed =
      (reason: string) =>
      (error: unknown): never => {
        parts.events.ofNode({ type: 'Warning', reason, message: messageOf(error) });
        throw error;
      };
    await Promise.all([
      keep(
        { routes: parts.healthRoutes, hardFail },
        () => config.healthzBindAddress,
        changed[0],
        signal,
      ).catch(failed('FailedToStartProxierHealthcheck')),
      keep(
        { routes: parts.statusRoutes, putRoutes: parts.debugRoutes, hardFail },
        () => config.metricsBindAddress,
        changed[1],
        signal,
      ).catch(failed('FailedToStartMetricServer')),
    ]);
  }

  return {
    run,
    adjust: () => {
      for (const moves of changed) for (const check of moves) check();
    },
  };
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

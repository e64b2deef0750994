/** What answers at metricsBindAddress, as kube-proxy's status server does. */
import { proxyConfigz } from '#pkg/config/proxy-configz.ts';
import type { CompleteProxyConfig } from '#pkg/config/proxy-config-defaults.ts';
import { text, type Routes } from '#pkg/health/http-server.ts';
import type { ProxyMetrics } from '#pkg/metrics/proxy-metrics.ts';
import type { ServiceStatusSource } from './service-status.ts';

export interface StatusSource {
  readonly mode: string;
  readonly file: () => CompleteProxyConfig;
  readonly metrics: Pick<ProxyMetrics, 'component' | 'render'>;
  readonly services: Pick<ServiceStatusSource, 'status' | 'metrics'>;
  /** Takes a new verbosity. */
  readonly setVerbosity: (level: number) => void;
}

/** Rows of one answer, unless asked for more. */
const defaultLimit = 500;

export function statusRoutes({ file, metrics, mode, services }: StatusSource): Routes {
  const ping = { '/healthz/ping': 'ok', '/healthz': 'ok' } as const;
  return new Map<string, Routes extends ReadonlyMap<string, infer R> ? R : never>([
    ...Object.entries(ping).map(
      ([path, body]) =>
        [
          path,
          ({ query }: { readonly query: URLSearchParams }) => {
            metrics.component.healthChecked('ping');
            return text(200, query.has('verbose') ? '[+]ping ok\nhealthz check passed\n' : body);
          },
        ] as const,
    ),
    [
      '/metrics',
      async () => {
        const { body, contentType } = await metrics.render();
        const ofServices = await services.metrics(file().nftables.serviceMetrics);
        return { status: 200, contentType, body: body + ofServices };
      },
    ],
    [
      '/podwire/status',
      async ({ query }: { readonly query: URLSearchParams }) => {
        const limit = Number(query.get('limit') ?? defaultLimit);
        if (!Number.isSafeInteger(limit) || limit < 0) {
          return text(
            400,
            `Cannot use limit ${JSON.stringify(query.get('limit'))}: expected a number\n`,
          );
        }
        const status = await services.status({
          services: query.get('services') ?? undefined,
          limit,
        });
        return { status: 200, contentType: 'application/json', body: JSON.stringify(status) };
      },
    ],
    ['/metrics/slis', async () => ({ status: 200, ...(await metrics.component.renderSlis()) })],
    ['/proxyMode', () => text(200, mode)],
    [
      '/configz',
      () => ({
        status: 200,
        contentType: 'application/json',
        body: JSON.stringify(proxyConfigz(file())),
      }),
    ],
  ]);
}

/** With enableProfiling: the verbosity can be changed without a new start. */
export function debugRoutes({ file, setVerbosity }: StatusSource): Routes {
  return new Map([
    [
      '/debug/flags/v',
      ({ body }: { readonly body: string }) => {
        if (!file().enableProfiling) return text(404, 'not found\n');
        if (!/^\d{1,9}$/.test(body.trim())) {
          return text(400, `Cannot use v ${JSON.stringify(body)}: expected a number\n`);
        }
        setVerbosity(Number(body));
        return text(200, `successfully set klog.logging.verbosity to ${body.trim()}\n`);
      },
    ],
  ]);
}

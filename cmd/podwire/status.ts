/** `podwire status`: what podwire-proxy on this node does, as it tells over HTTP. */
import { AgentError } from '#pkg/errors/agent-error.ts';
import type {
  FamilyStatus,
  ProxyStatus,
  ServiceStatus,
} from '#cmd/podwire-proxy/service-status.ts';

export interface StatusOptions {
  /** Where the proxy's metricsBindAddress is: "http://127.0.0.1:10249". */
  readonly server: string;
  /** "namespace", "namespace/name"; true = all; undefined = none. */
  readonly services: string | true | undefined;
  /** Tells endpoints, too. */
  readonly endpoints: boolean;
  readonly output: 'text' | 'json';
  readonly limit: number;
}

const patienceMs = 10_000;

/**
 * Prints it.
 *
 * @returns 0 = all is written, 1 = something is not
 * @throws {AgentError} ProxyUnavailable when nobody answers, or nobody of ours
 */
export async function runStatus(
  options: StatusOptions,
  print: (text: string) => void,
  signal: AbortSignal,
): Promise<0 | 1> {
  const status = await ask(options, signal);
  if (options.output === 'json') print(`${JSON.stringify(status, undefined, 2)}\n`);
  else print(statusText(status, options));
  return status.families.every(({ healthy }) => healthy) ? 0 : 1;
}

async function ask(
  { limit, server, services }: StatusOptions,
  signal: AbortSignal,
): Promise<ProxyStatus> {
  const url = new URL('/podwire/status', server);
  url.searchParams.set('limit', String(limit));
  if (services !== undefined) url.searchParams.set('services', services === true ? '' : services);
  const failed = (state: string, cause?: unknown): AgentError =>
    new AgentError('ProxyUnavailable', `Cannot ask podwire-proxy at ${server}: ${state}`, {
      cause,
    });
  let answer: Response;
  try {
    const patience = AbortSignal.any([signal, AbortSignal.timeout(patienceMs)]);
    answer = await fetch(url, { signal: patience });
  } catch (error) {
    throw failed('nobody answers', error);
  }
  if (answer.status === 404) throw failed('what answers there is not podwire-proxy');
  if (!answer.ok) throw failed(`it answered ${answer.status} ${(await answer.text()).trim()}`);
  return (await answer.json()) as ProxyStatus;
}

/** The whole as text: a line for each family, then a table of Services. */
export function statusText(
  { families, mode, node, omitted, services, version }: ProxyStatus,
  { endpoints }: Pick<StatusOptions, 'endpoints'>,
): string {
  const head = `podwire-proxy ${version} on ${node}, mode ${mode}\n${families.map(familyLine).join('')}`;
  if (services.length === 0) return head;
  const rows = services.flatMap((service) => [
    [...serviceRow(service), ...trafficCells(service)],
    ...(endpoints
      ? service.endpoints.map((of) => [...endpointRow(of), '', '', '', ...trafficCells(of)])
      : []),
  ]);
  const titles = [
    'SERVICE',
    'PORT',
    'ADDRESS',
    'ENDPOINTS',
    'CONNECTIONS',
    'REFUSED',
    'DROPPED',
    'BARRED',
    ...(services.some(({ traffic }) => traffic !== null)
      ? ['PACKETS IN', 'BYTES IN', 'PACKETS OUT', 'BYTES OUT']
      : []),
  ];
  const more = omitted === 0 ? '' : `and ${omitted} more: --limit\n`;
  return `${head}\n${table([titles, ...rows])}${more}`;
}

function familyLine(of: FamilyStatus): string {
  const name = of.family === 'ip' ? 'IPv4' : 'IPv6';
  const state = of.healthy ? 'in sync' : 'NOT in sync';
  const last = of.lastWritten === null ? 'never written' : `last written ${of.lastWritten}`;
  const lacking = of.withoutEndpoints === 0 ? '' : `, ${of.withoutEndpoints} ports without any`;
  return `${name}: ${state}, ${last}; ${of.ports} Service ports, ${of.endpoints} endpoints${lacking}\n`;
}

function serviceRow(service: ServiceStatus): string[] {
  const { address, counts, endpoints, name, namespace, port, protocol } = service;
  return [
    `${namespace}/${name}`,
    `${port}/${protocol}`,
    address,
    String(endpoints.length),
    counts === null ? '-' : String(counts.connections),
    counts === null ? '-' : String(counts.refused.packets),
    counts === null ? '-' : String(counts.dropped.packets),
    counts === null ? '-' : String(counts.barred.packets),
  ];
}

function endpointRow({ connections, target }: ServiceStatus['endpoints'][number]): string[] {
  return ['', '', `  ${target}`, '', connections === null ? '-' : String(connections)];
}

/** No columns where it is not counted. */
function trafficCells({ traffic }: Pick<ServiceStatus, 'traffic'>): string[] {
  if (traffic === null) return [];
  const { in: received, out } = traffic;
  return [received.packets, received.bytes, out.packets, out.bytes].map(String);
}

function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]?.map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0))) ?? [];
  return rows
    .map(
      (row) =>
        `${row
          .map((cell, i) => cell.padEnd(widths[i] ?? 0))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('');
}

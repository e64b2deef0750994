/**
 * /flagz and /statusz: pages about this process for people, in the text that Kubernetes' components
 * answer with (KEP-4828, KEP-4827).
 */
import type { Clock } from '#pkg/clock/clock.ts';
import { isFeatureEnabled } from '#pkg/config/feature-gates.ts';
import { text, type Answer, type Asked, type Routes } from '#pkg/health/http-server.ts';

export interface ZpagesSource {
  /** The name the program was called by. */
  readonly program: string;
  readonly version: string;
  readonly nodeVersion: string;
  /** The flags that were given, by name. */
  readonly flags: ReadonlyMap<string, string>;
  readonly featureGates: Readonly<Record<string, boolean>>;
  readonly clock: Pick<Clock, 'now'>;
  /** When the process started. */
  readonly startedMs: number;
  /** The other paths of this server. */
  readonly paths: readonly string[];
}

/** Those that feature gates leave on. */
export function zpages(source: ZpagesSource): Routes {
  const { featureGates: gates, flags, program } = source;
  const pages = new Map<string, (asked: Asked) => Answer>();
  const add = (name: 'flagz' | 'statusz', lines: () => readonly (readonly [string, string])[]) =>
    pages.set(`/${name}`, ({ accept = '*/*' }) => {
      if (!acceptsText(accept)) {
        return text(406, 'media type not acceptable, must be: text/plain\n');
      }
      const shown = lines().map(([key, value]) => `${key}: ${value}\n`);
      return text(200, `\n${program} ${name}\n${warning}\n\n${shown.join('')}`);
    });
  if (isFeatureEnabled(gates, 'ComponentFlagz')) {
    const sorted = [...flags].toSorted(([a], [b]) => (a < b ? -1 : 1));
    add('flagz', () => sorted);
  }
  if (isFeatureEnabled(gates, 'ComponentStatusz')) add('statusz', () => statusOf(source, pages));
  return pages;
}

const warning =
  'Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.';

function statusOf(source: ZpagesSource, pages: Routes): readonly (readonly [string, string])[] {
  const { clock, nodeVersion, paths, startedMs, version } = source;
  return [
    ['Started', unixDate(startedMs)],
    ['Up', duration(clock.now() - startedMs)],
    ['Node.js version', nodeVersion],
    ['Binary version', version],
    ['Paths', [...paths, ...pages.keys()].toSorted().join(' ')],
  ];
}

function acceptsText(accept: string): boolean {
  return accept.split(',').some((range) => {
    const [type = '', ...parameters] = range
      .trim()
      .toLowerCase()
      .split(/\s*;\s*/);
    const others = parameters.filter((p) => !p.startsWith('q=') && p !== 'charset=utf-8');
    return ['text/plain', 'text/*', '*/*', ''].includes(type) && others.length === 0;
  });
}

/** As Go's time.UnixDate: "Mon Jan  2 15:04:05 UTC 2006". */
function unixDate(atMs: number): string {
  const [, day = '', date = '', month = '', year = '', time = ''] =
    /^(\w+), (\d+) (\w+) (\d+) ([\d:]+)/.exec(new Date(atMs).toUTCString()) ?? [];
  return `${day} ${month} ${String(Number(date)).padStart(2)} ${time} UTC ${year}`;
}

function duration(ms: number): string {
  const seconds = Math.floor(ms / 1_000);
  const two = (n: number): string => String(n).padStart(2, '0');
  return `${Math.floor(seconds / 3_600)} hr ${two(Math.floor(seconds / 60) % 60)} min ${two(seconds % 60)} sec`;
}

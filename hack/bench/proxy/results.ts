/** Figures of one contestant at one size, as a line of a file that is kept. */
import { loadavg } from 'node:os';
import type { Figures } from './measure.ts';
import { quantile } from './table.ts';

/** Times in milliseconds unless named otherwise. */
export interface Result {
  readonly name: string;
  readonly services: number;
  readonly endpoints: number;
  readonly family: string;
  /** Of the machine, over the last minute. */
  readonly load: number;
  readonly startMs: number;
  readonly healthMaxMs: number;
  readonly change: readonly [p50: number, p99: number];
  readonly busy: readonly [p50: number, p99: number];
  readonly kernel: readonly [p50: number, p99: number] | undefined;
  readonly cpuMs: number;
  readonly bytes: number | undefined;
  readonly parts: number | undefined;
  readonly memoryMB: number;
  readonly connectMicros: readonly [p50: number, p99: number];
  readonly podMicros: readonly [p50: number, p99: number];
}

export function resultLine(
  name: string,
  of: { readonly services: number; readonly endpoints: number; readonly family: string },
  figures: Figures,
): string {
  const result: Result = {
    name,
    ...of,
    load: rounded(loadavg()[0] ?? 0),
    startMs: rounded(figures.startMs),
    healthMaxMs: rounded(Math.max(...figures.healthMicros) / 1000),
    change: pair(figures.changeMs),
    busy: pair(figures.busyMs),
    kernel: figures.kernelMs.length === 0 ? undefined : pair(figures.kernelMs),
    cpuMs: rounded(figures.cpuMsPerChange),
    bytes: figures.inputs[0]?.bytes,
    parts: figures.inputs[0]?.parts,
    memoryMB: rounded(figures.memoryMB.now),
    connectMicros: pair(figures.serviceMicros),
    podMicros: pair(figures.podMicros),
  };
  return JSON.stringify(result);
}

function pair(values: readonly number[]): readonly [number, number] {
  return [rounded(quantile(values, 0.5)), rounded(quantile(values, 0.99))];
}

function rounded(value: number): number {
  return Number(value.toPrecision(4));
}

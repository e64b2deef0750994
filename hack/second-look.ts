/**
 * Whether a file that failed is worth a second look, by itself. Three legs share the machine: a test that
 * passes alone was starved, or meets another one, and is named as such; what is broken fails again.
 */
import type { Command } from './legs.ts';

export interface Failed {
  /** Runs files that are appended to it. */
  readonly command: Command;
  /** Undefined when nobody knows which they are. */
  readonly files: readonly string[] | undefined;
}

/** More than this is no accident. */
const maxFiles = 3;

/** What to run again; undefined when that would tell nothing. */
export function secondLook(failed: readonly Failed[]): Command[] | undefined {
  let count = 0;
  const commands: Command[] = [];
  for (const { command, files = [] } of failed) {
    if (files.length === 0) return undefined;
    count += files.length;
    commands.push([...command, ...files]);
  }
  return count > 0 && count <= maxFiles ? commands : undefined;
}

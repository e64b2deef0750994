/** Cuts a watch (newline-delimited JSON) into its lines while it arrives. */
import { AgentError } from '#pkg/errors/agent-error.ts';

export interface LineSplitter {
  /** Takes the next bytes, cut anywhere; calls back with each line they complete. */
  write(chunk: Uint8Array): void;
  /** The body is complete. Throws AgentError `CutLine` when it ended inside a line. */
  finish(): void;
}

const newline = 0x0a;

/** Lines are handed on as text without their end; blank lines are left out. */
export function createLineSplitter(onLine: (line: string) => void): LineSplitter {
  let parts: Uint8Array[] = [];

  return {
    write: (chunk) => {
      let from = 0;
      for (;;) {
        const at = chunk.indexOf(newline, from);
        if (at === -1) break;
        parts.push(chunk.subarray(from, at));
        const line = Buffer.concat(parts).toString('utf8').trim();
        parts = [];
        from = at + 1;
        if (line !== '') onLine(line);
      }
      // A copy: the rest may wait for long, and must not hold the whole chunk meanwhile.
      if (from < chunk.length) parts.push(Buffer.from(chunk.subarray(from)));
    },
    finish: () => {
      if (Buffer.concat(parts).toString('utf8').trim() !== '') {
        throw new AgentError('CutLine', 'Cannot read a watch: it ended inside a line');
      }
    },
  };
}

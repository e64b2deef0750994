/** Logs what cannot be served when it appears and when it is gone, not in every round. */
import type { Logger } from '#pkg/log/logger.ts';
import type { Problem } from '#pkg/proxy/proxied-port.ts';

export interface ProblemLog {
  /** All problems there are now. */
  report(problems: readonly Problem[]): void;
}

export function createProblemLog(log: Logger): ProblemLog {
  let known: ReadonlyMap<string, Problem> = new Map();
  return {
    report: (problems) => {
      const now = new Map(problems.map((p) => [JSON.stringify(p), p]));
      for (const [key, problem] of now) {
        if (!known.has(key)) log.warn({ ...problem }, 'Part of an object cannot be served');
      }
      for (const [key, problem] of known) {
        if (!now.has(key)) log.info({ ...problem }, 'Problem is gone');
      }
      known = now;
    },
  };
}

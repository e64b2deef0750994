/** Logs what cannot be served when it appears and when it is gone, not in every round. */
import type { Logger } from '#pkg/log/logger.ts';
import type { Problem } from '#pkg/proxy/proxied-port.ts';

export interface ProblemLog {
  /** All problems there are now. */
  report(problems: readonly Problem[]): void;
}

/** @param onAppear told of each problem when it is new */
export function createProblemLog(
  log: Logger,
  onAppear: (problem: Problem) => void = () => undefined,
): ProblemLog {
  let known: ReadonlyMap<string, Problem> = new Map();
  return {
    report: (problems) => {
      const now = new Map(problems.map((p) => [JSON.stringify(p), p]));
      for (const [key, problem] of now) {
        if (known.has(key)) continue;
        log.warn({ ...problem }, 'Part of an object cannot be served');
        onAppear(problem);
      }
      for (const [key, problem] of known) {
        if (!now.has(key)) log.info({ ...problem }, 'Problem is gone');
      }
      known = now;
    },
  };
}

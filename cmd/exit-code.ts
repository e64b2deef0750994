/** How a daemon's end is told to what started it. */
import { isErrno, messageOf } from '#pkg/errors/agent-error.ts';

/** What only a person can put right: starting again changes nothing. */
const configurationErrors = ['WrongUsage', 'InvalidConfig', 'WrongKubeconfig', 'NotInCluster'];

/** 2 when what ended the daemon is wrong usage or configuration, else 1. */
export function exitCodeFor(error: unknown): 1 | 2 {
  return configurationErrors.some((code) => isErrno(error, code)) ? 2 : 1;
}

/**
 * What the log's last line says of it: the reason alone, in one line, where a person has to put it
 * right; else also where in the program it happened.
 */
export function failureFields(error: unknown): object {
  const reason = messageOf(error);
  return exitCodeFor(error) === 2 ? { reason } : { reason, err: error };
}

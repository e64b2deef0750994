/** How a daemon's end is told to what started it. */
import { isErrno } from '#pkg/errors/agent-error.ts';

/** What only a person can put right: starting again changes nothing. */
const configurationErrors = ['WrongUsage', 'InvalidConfig', 'WrongKubeconfig', 'NotInCluster'];

/** 2 when what ended the daemon is wrong usage or configuration, else 1. */
export function exitCodeFor(error: unknown): 1 | 2 {
  return configurationErrors.some((code) => isErrno(error, code)) ? 2 : 1;
}

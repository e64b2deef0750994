/** The kernel's refusal of one netlink request. */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { errnoName, errnoText } from '#pkg/sys/errno.ts';
import type { Verdict } from './message.ts';

/**
 * `code` is the errno name ("EEXIST"). The message says what was asked, and why not: in the
 * kernel's own words (extended acknowledgement) where it gave some.
 */
export class NetlinkError extends AgentError {
  /** @param what the request as words that follow "Cannot": `add route 10.0.0.0/24 via 10.0.0.1` */
  constructor(what: string, verdict: Verdict) {
    const code = errnoName(verdict.errno);
    const said = verdict.text === undefined ? '' : `: ${verdict.text}`;
    super(code, `Cannot ${what}: ${errnoText(verdict.errno)} (${code})${said}`);
  }
}

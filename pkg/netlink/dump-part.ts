/** What one datagram of the answer to a dump says. */
import { NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR } from './constants.ts';
import { readAcknowledgement, readDone, type Message } from './message.ts';
import { NetlinkError } from './netlink-error.ts';

export interface DumpPart {
  readonly messages: readonly Message[];
  /** The table changed meanwhile: what was read is true, but there is more. */
  readonly isInterrupted: boolean;
  readonly isLast: boolean;
}

/**
 * Leaves out what belongs to other requests.
 *
 * @param of sequence number of the request, and its words for errors
 * @throws {NetlinkError} when the kernel refuses
 */
export function readDumpPart(
  received: readonly Message[],
  of: { readonly sequence: number; readonly what: string },
): DumpPart {
  const messages: Message[] = [];
  let isInterrupted = false;
  for (const message of received) {
    if (message.sequence !== of.sequence) continue;
    if ((message.flags & NLM_F_DUMP_INTR) !== 0) isInterrupted = true;
    if (message.type !== NLMSG_DONE && message.type !== NLMSG_ERROR) {
      messages.push(message);
      continue;
    }
    const verdict = message.type === NLMSG_DONE ? readDone(message) : readAcknowledgement(message);
    if (verdict.errno !== 0) throw new NetlinkError(of.what, verdict);
    return { messages, isInterrupted, isLast: true };
  }
  return { messages, isInterrupted, isLast: false };
}

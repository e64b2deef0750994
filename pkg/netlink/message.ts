/** Netlink messages (struct nlmsghdr, include/uapi/linux/netlink.h) to and from bytes. */
import { concatBytes, littleEndian, readNested, readString, viewOf } from './attribute.ts';
import { NLM_F_ACK_TLVS, NLM_F_CAPPED, NLMSGERR_ATTR_MSG } from './constants.ts';

/** A message as received. `body` is what follows the header: a fixed struct, then attributes. */
export interface Message {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  readonly body: Uint8Array;
}

const headerBytes = 16;

/** One message, ready to send to the kernel (whose port id is 0, as is an unbound sender's). */
export function encodeMessage(
  message: Omit<Message, 'body'>,
  body: readonly Uint8Array[],
): Uint8Array {
  const header = new Uint8Array(headerBytes);
  const bytes = concatBytes([header, ...body]);
  const view = viewOf(bytes);
  view.setUint32(0, bytes.byteLength, littleEndian);
  view.setUint16(4, message.type, littleEndian);
  view.setUint16(6, message.flags, littleEndian);
  view.setUint32(8, message.sequence, littleEndian);
  return bytes;
}

/** The messages of one datagram; reading stops where the lengths stop making sense. */
export function parseMessages(bytes: Uint8Array): Message[] {
  const messages: Message[] = [];
  const view = viewOf(bytes);
  let at = 0;
  while (at + headerBytes <= bytes.byteLength) {
    const length = view.getUint32(at, littleEndian);
    if (length < headerBytes || at + length > bytes.byteLength) break;
    messages.push({
      type: view.getUint16(at + 4, littleEndian),
      flags: view.getUint16(at + 6, littleEndian),
      sequence: view.getUint32(at + 8, littleEndian),
      body: bytes.subarray(at + headerBytes, at + length),
    });
    at += (length + 3) & ~3;
  }
  return messages;
}

/** What NLMSG_ERROR and NLMSG_DONE carry: 0 or a positive errno, and the kernel's own words. */
export interface Verdict {
  readonly errno: number;
  readonly text: string | undefined;
}

/** Reads an acknowledgement (struct nlmsgerr, then with NETLINK_EXT_ACK attributes). */
export function readAcknowledgement(message: Message): Verdict {
  const errno = readErrno(message.body);
  if ((message.flags & NLM_F_ACK_TLVS) === 0) return { errno, text: undefined };
  // After the errno comes the header of our request, with its payload unless it was left out.
  const view = viewOf(message.body);
  const echoed =
    (message.flags & NLM_F_CAPPED) === 0 && message.body.byteLength >= 8
      ? (view.getUint32(4, littleEndian) + 3) & ~3
      : headerBytes;
  return { errno, text: readText(message.body.subarray(4 + echoed)) };
}

/** Reads the end of a dump: its errno, then with NETLINK_EXT_ACK attributes. */
export function readDone(message: Message): Verdict {
  const errno = readErrno(message.body);
  const text =
    (message.flags & NLM_F_ACK_TLVS) === 0 ? undefined : readText(message.body.subarray(4));
  return { errno, text };
}

/** Dumps that end well may come without an errno from old kernels. */
function readErrno(body: Uint8Array): number {
  return body.byteLength < 4 ? 0 : -viewOf(body).getInt32(0, littleEndian);
}

function readText(attributes: Uint8Array): string | undefined {
  return readString(readNested(attributes).get(NLMSGERR_ATTR_MSG));
}

/** Netlink messages (struct nlmsghdr, include/uapi/linux/netlink.h) to and from bytes. */
import { copyBytes, getU16, getU32, readNested, readString, setU16, setU32 } from './attribute.ts';
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
  const bytes = new Uint8Array(messageBytes(body));
  writeMessage(bytes, 0, message, body);
  return bytes;
}

/** The length of a message with this body. */
export function messageBytes(body: readonly Uint8Array[]): number {
  let length = headerBytes;
  for (const part of body) length += part.byteLength;
  return length;
}

/** As {@link encodeMessage}, into `bytes` at `at`; returns where it ends. */
export function writeMessage(
  bytes: Uint8Array,
  at: number,
  message: Omit<Message, 'body'>,
  body: readonly Uint8Array[],
): number {
  let end = at + headerBytes;
  for (const part of body) {
    copyBytes(bytes, end, part);
    end += part.byteLength;
  }
  setU32(bytes, at, end - at);
  setU16(bytes, at + 4, message.type);
  setU16(bytes, at + 6, message.flags);
  setU32(bytes, at + 8, message.sequence);
  return end;
}

/** The messages of one datagram; reading stops where the lengths stop making sense. */
export function parseMessages(bytes: Uint8Array): Message[] {
  const messages: Message[] = [];
  let at = 0;
  while (at + headerBytes <= bytes.byteLength) {
    const length = getU32(bytes, at);
    if (length < headerBytes || at + length > bytes.byteLength) break;
    messages.push({
      type: getU16(bytes, at + 4),
      flags: getU16(bytes, at + 6),
      sequence: getU32(bytes, at + 8),
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
  const echoed =
    (message.flags & NLM_F_CAPPED) === 0 && message.body.byteLength >= 8
      ? (getU32(message.body, 4) + 3) & ~3
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
  return body.byteLength < 4 ? 0 : -(getU32(body, 0) | 0);
}

function readText(attributes: Uint8Array): string | undefined {
  return readString(readNested(attributes).get(NLMSGERR_ATTR_MSG));
}

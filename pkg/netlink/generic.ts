/** Generic netlink (include/uapi/linux/genetlink.h): families of commands, found by their names. */
import { isErrno } from '#pkg/errors/agent-error.ts';
import { attributeString, readAttributes, readU16 } from './attribute.ts';
import {
  CTRL_ATTR_FAMILY_ID,
  CTRL_ATTR_FAMILY_NAME,
  CTRL_CMD_GETFAMILY,
  GENL_ID_CTRL,
} from './constants.ts';
import type { NetlinkSocket } from './socket.ts';

/** struct genlmsghdr { u8 cmd; u8 version; u16 reserved; } */
export const genericHeaderBytes = 4;

/** struct genlmsghdr (include/uapi/linux/genetlink.h). */
export function genericHeader(command: number, version: number): Uint8Array {
  return Uint8Array.of(command, version, 0, 0);
}

/** The number this kernel gave the family; undefined when it has no such family. */
export function genericFamily(socket: NetlinkSocket, name: string): number | undefined {
  try {
    const replies = socket.request({
      type: GENL_ID_CTRL,
      body: [genericHeader(CTRL_CMD_GETFAMILY, 1), attributeString(CTRL_ATTR_FAMILY_NAME, name)],
      what: `find generic netlink family ${name}`,
    });
    const attributes = replies.map(({ body }) => readAttributes(body.subarray(genericHeaderBytes)));
    return readU16(attributes[0]?.get(CTRL_ATTR_FAMILY_ID));
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}

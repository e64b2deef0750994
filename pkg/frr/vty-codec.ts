/**
 * What vtysh and FRR's daemons say to each other over a daemon's vty socket (lib/vty.c,
 * vtysh/vtysh.c): a command ends with a NUL; the answer is text, three NULs and a status.
 */
import { AgentError } from '#pkg/errors/agent-error.ts';

export interface VtyReply {
  /** 0 = done (CMD_SUCCESS of lib/command.h); else `text` says what is wrong. */
  readonly status: number;
  readonly text: string;
}

const endMark = Buffer.alloc(3);

/** @throws {AgentError} InvalidCommand for what would be more, or less, than one command */
export function encodeVtyCommand(command: string): Uint8Array {
  if (command === '' || /[\0\n\r]/.test(command)) {
    const shown = JSON.stringify(command);
    throw new AgentError('InvalidCommand', `Cannot tell FRR ${shown}: expected one line of text`);
  }
  return Buffer.from(`${command}\0`);
}

/** The first answer in these bytes, and how many of them it is; undefined while its end is missing. */
export function takeVtyReply(
  bytes: Buffer,
): { readonly reply: VtyReply; readonly length: number } | undefined {
  const end = bytes.indexOf(endMark);
  const status = end === -1 ? undefined : bytes[end + endMark.length];
  if (status === undefined) return undefined;
  return {
    reply: { status, text: bytes.toString('utf8', 0, end) },
    length: end + endMark.length + 1,
  };
}

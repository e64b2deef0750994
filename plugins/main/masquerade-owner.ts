/** What both ways to masquerade share. */
import { AgentError, messageOf } from '#pkg/errors/agent-error.ts';
import type { Attachment } from '#pkg/cni/environment.ts';

/** Whose traffic, of which network. */
export interface MasqueradeOwner extends Attachment {
  readonly network: string;
}

/** This backend cannot be asked here what rules it has: its program is missing, or fails. */
export class UnusableBackend extends AgentError {
  constructor(cause: unknown) {
    super('UnusableBackend', messageOf(cause), { cause });
  }
}

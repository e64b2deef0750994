/** What the demo's agents are asked, and answer: one JSON line each way. */

export interface CallRequest {
  readonly op: 'call';
  readonly protocol: 'tcp' | 'udp';
  readonly address: string;
  readonly port: number;
  readonly timeoutMs: number;
}

/** One request and its answer. */
export type CallOutcome =
  | {
      readonly ok: true;
      /** Name of who answered. */
      readonly server: string;
      /** The client's address as the server saw it. */
      readonly source: string;
      readonly ms: number;
    }
  | {
      readonly ok: false;
      /** errno name, ETIMEDOUT when nothing came. */
      readonly code: string;
      readonly ms: number;
    };

/** Requests at an interval over one connection (TCP) or socket (UDP), until told to stop. */
export interface StreamRequest {
  readonly op: 'stream';
  readonly protocol: 'tcp' | 'udp';
  readonly address: string;
  readonly port: number;
  readonly intervalMs: number;
}

export interface StreamOutcome {
  readonly sent: number;
  readonly answered: number;
  /** Longest time between two answers. */
  readonly longestGapMs: number;
  /** What ended the connection before its time; undefined when it held. */
  readonly error?: string;
}

export type AgentRequest = CallRequest | StreamRequest;

/** Asks an agent to make calls from where it stands. */
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { AgentError } from '#pkg/errors/agent-error.ts';
import type {
  AgentRequest,
  CallOutcome,
  CallRequest,
  StreamOutcome,
  StreamRequest,
} from './agent-protocol.ts';

/** Where the agent called `name` takes requests. */
export function agentSocket(runPath: string, name: string): string {
  return join(runPath, 'agents', `${name}.sock`);
}

/** A pod's agent is called by the pod's own name. */
export function podAgent(namespace: string, name: string): string {
  return `pod-${namespace}-${name}`;
}

export async function callFrom(
  socketPath: string,
  request: Omit<CallRequest, 'op'>,
): Promise<CallOutcome> {
  const { lines } = ask(socketPath, { op: 'call', ...request });
  const { value } = await lines.next();
  await lines.return(undefined);
  return parse<CallOutcome>(socketPath, value);
}

/** A stream that has had its first answer. */
export interface RunningStream {
  /** Ends it and tells how it went. */
  stop(): Promise<StreamOutcome>;
}

export async function startStream(
  socketPath: string,
  request: Omit<StreamRequest, 'op'>,
): Promise<RunningStream> {
  const { socket, lines } = ask(socketPath, { op: 'stream', ...request });
  const first = await lines.next();
  if (first.value !== 'started') throw noAnswer(socketPath, first.value);
  return {
    stop: async () => {
      socket.end();
      const { value } = await lines.next();
      await lines.return(undefined);
      return parse<StreamOutcome>(socketPath, value);
    },
  };
}

interface Conversation {
  readonly socket: Socket;
  readonly lines: AsyncGenerator<string, undefined, void>;
}

function ask(path: string, request: AgentRequest): Conversation {
  const socket = connect({ path, allowHalfOpen: true });
  socket.write(`${JSON.stringify(request)}\n`);
  return { socket, lines: linesOf(socket) };
}

async function* linesOf(socket: Socket): AsyncGenerator<string, undefined, void> {
  let rest = '';
  for await (const text of socket.setEncoding('utf8') as AsyncIterable<string>) {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    yield* lines;
  }
  return undefined;
}

function parse<T>(socketPath: string, line: string | undefined): T {
  if (line === undefined) throw noAnswer(socketPath);
  return JSON.parse(line) as T;
}

function noAnswer(socketPath: string, got?: string): AgentError {
  return new AgentError(
    'AgentSilent',
    `Cannot get an answer from agent ${socketPath}: ${got ?? 'it closed the connection'}`,
  );
}

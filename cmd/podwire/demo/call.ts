/** One request over a new connection, and its answer. */
import { createSocket } from 'node:dgram';
import { connect } from 'node:net';
import { performance } from 'node:perf_hooks';
import type { CallOutcome, CallRequest } from './agent-protocol.ts';

/** Never rejects: failing is an outcome. */
export async function call(request: CallRequest): Promise<CallOutcome> {
  const startMs = performance.now();
  const elapsed = (): number => Math.round(performance.now() - startMs);
  try {
    const answer = request.protocol === 'tcp' ? await callTcp(request) : await callUdp(request);
    const [server = '', source = ''] = answer.split(' ');
    return { ok: true, server, source, ms: elapsed() };
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    return { ok: false, code, ms: elapsed() };
  }
}

function callTcp({ address, port, timeoutMs }: CallRequest): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: address, port });
    const timer = setTimeout(() => socket.destroy(timedOut()), timeoutMs);
    socket.setEncoding('utf8');
    socket.once('connect', () => socket.write('hello\n'));
    socket.once('data', (text: string) => {
      resolve(text.trim());
      socket.destroy();
    });
    socket.once('error', reject);
    socket.once('close', () => {
      clearTimeout(timer);
      reject(Object.assign(new Error('closed without an answer'), { code: 'ECONNRESET' }));
    });
  });
}

/** Connected, so that the kernel reports a refusal (ICMP port unreachable) as an error. */
function callUdp({ address, port, timeoutMs }: CallRequest): Promise<string> {
  return new Promise<string>((resolve, reject) => {
    const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
    const timer = setTimeout(() => finish(() => reject(timedOut())), timeoutMs);
    const finish = (then: () => void): void => {
      clearTimeout(timer);
      socket.close();
      then();
    };
    socket.once('message', (data) => finish(() => resolve(data.toString())));
    socket.once('error', (error) => finish(() => reject(error)));
    // On failure the callback has the error, which @types/node leaves out.
    socket.connect(port, address, (error?: Error) => {
      if (error) finish(() => reject(error));
      else socket.send('hello', () => undefined);
    });
  });
}

function timedOut(): Error {
  return Object.assign(new Error('no answer'), { code: 'ETIMEDOUT' });
}

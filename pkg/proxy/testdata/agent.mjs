/**
 * Acts inside a namespace: one process for many connections, since starting one costs far more than
 * what it does. Reads requests, a line of JSON each, and answers each with a line that has its id.
 * With arguments NAME PORT it also serves: TCP and UDP on PORT, and TCP on PORT + 2, answered with
 * `NAME CLIENT-ADDRESS` and closed; TCP on PORT + 1, which stays open and sends back what it gets.
 */
import { createSocket } from 'node:dgram';
import { connect, createServer, isIPv6 } from 'node:net';
import { createInterface } from 'node:readline';

const [name, port] = process.argv.slice(2);
const streams = new Map();
/** For what comes, if late on a machine under load; who expects silence says how long it listens. */
const patience = 20_000;
const plain = (address) => address.replace(/^::ffff:/, '');

function askTcp({ host, port: to, source, timeoutMs = patience }) {
  return new Promise((resolve) => {
    const socket = connect({ host, port: to, ...(source === undefined ? {} : { localAddress: source }) });
    let text = '';
    socket.setTimeout(timeoutMs, () => socket.destroy(Object.assign(new Error(), { code: 'TIMEOUT' })));
    socket.on('data', (data) => (text += data));
    socket.on('error', (error) => resolve(error.code));
    socket.on('end', () => resolve(text.trim()));
  });
}

/** A connected socket: it hears of a refusal. */
function askUdp({ host, port: to, source, timeoutMs = patience }) {
  return new Promise((resolve) => {
    const socket = createSocket(isIPv6(host) ? 'udp6' : 'udp4');
    const done = (answer) => {
      clearTimeout(timer);
      socket.close();
      resolve(answer);
    };
    const timer = setTimeout(done, timeoutMs, 'TIMEOUT');
    socket.on('message', (data) => done(data.toString()));
    socket.on('error', (error) => done(error.code));
    const send = () => socket.connect(to, host, () => socket.send('?'));
    if (source === undefined) send();
    else socket.bind(0, source, send);
  });
}

async function ask({ count = 1, protocol = 'tcp', sources, ...request }) {
  const answers = [];
  const froms = sources ?? Array(count).fill(undefined);
  for (const source of froms)
    answers.push(await (protocol === 'udp' ? askUdp : askTcp)({ source, ...request }));
  return answers;
}

/** A connection on which a byte goes forth and back all the time, until it is asked about. */
function openStream({ key, host, port: to, intervalMs = 5 }) {
  return new Promise((resolve) => {
    const socket = connect({ host, port: to });
    const state = { socket, answered: 0, longestMs: 0, error: undefined };
    streams.set(key, state);
    let sentAt;
    const send = () => {
      sentAt = performance.now();
      socket.write('x');
    };
    socket.setNoDelay(true);
    socket.on('connect', () => {
      send();
      resolve({ localPort: socket.localPort });
    });
    socket.on('data', () => {
      state.answered += 1;
      state.answeredAt = performance.now();
      state.longestMs = Math.max(state.longestMs, performance.now() - sentAt);
      setTimeout(send, intervalMs);
    });
    socket.on('error', (error) => {
      state.error = error.code;
      resolve({ error: error.code });
    });
    socket.on('end', () => (state.error ??= 'END'));
  });
}

/** Ends after so many more answers, so that one was asked for since the call, or when none came that long. */
async function closeStream({ key, patienceMs = patience, answers = 5 }) {
  const state = streams.get(key);
  const enough = state.answered + answers;
  const startMs = performance.now();
  const silentMs = () => performance.now() - Math.max(startMs, state.answeredAt ?? 0);
  while (state.answered < enough && state.error === undefined && silentMs() < patienceMs)
    await new Promise((resolve) => setTimeout(resolve, 5));
  const stalled = state.answered < enough;
  streams.delete(key);
  state.socket.destroy();
  const { answered, error, longestMs } = state;
  return { answered, error: error ?? (stalled ? 'STALLED' : undefined), longestMs };
}

/** Connects anew again and again, until it is asked about: failures by their kind. */
function startConnecting({ key, host, port: to, intervalMs = 20 }) {
  const state = { stopped: false, count: 0, failures: [], answers: {} };
  streams.set(key, state);
  const next = async () => {
    if (state.stopped) return;
    const answer = await askTcp({ host, port: to });
    state.count += 1;
    if (answer.includes(' ')) state.answers[answer] = (state.answers[answer] ?? 0) + 1;
    else state.failures.push(answer);
    setTimeout(next, intervalMs);
  };
  void next();
  return { started: true };
}

function stopConnecting({ key }) {
  const state = streams.get(key);
  state.stopped = true;
  streams.delete(key);
  return { count: state.count, failures: state.failures, answers: state.answers };
}

function serve() {
  const answer = (socket) => {
    socket.on('error', () => undefined);
    socket.end(`${name} ${plain(socket.remoteAddress)}\n`);
  };
  const echo = (socket) => {
    socket.on('error', () => undefined);
    socket.pipe(socket);
  };
  const listening = [answer, echo, answer].map(
    (act, i) => new Promise((done) => createServer(act).listen(Number(port) + i, '::', done)),
  );
  const udp = createSocket({ type: 'udp6', ipv6Only: false });
  udp.on('error', () => undefined);
  udp.on('message', (_, from) => udp.send(`${name} ${plain(from.address)}`, from.port, from.address));
  listening.push(new Promise((done) => udp.bind(Number(port), '::', done)));
  return Promise.all(listening);
}

const operations = { ask, openStream, closeStream, startConnecting, stopConnecting };
const reply = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

createInterface({ input: process.stdin }).on('line', async (line) => {
  const { id, op, ...request } = JSON.parse(line);
  reply({ id, result: await operations[op](request) });
});
process.stdin.on('end', () => process.exit(0));
if (name === undefined) reply({ id: 0, result: 'ready' });
else void serve().then(() => reply({ id: 0, result: 'serving' }));

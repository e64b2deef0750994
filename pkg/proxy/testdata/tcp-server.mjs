/** Answers each TCP connection on PORT with `NAME CLIENT-ADDRESS`. Arguments: name, port. */
import { createServer } from 'node:net';

const [name, port] = process.argv.slice(2);
createServer((socket) => {
  socket.on('error', () => undefined);
  socket.end(`${name} ${socket.remoteAddress.replace(/^::ffff:/, '')}\n`);
}).listen(Number(port), '::');

/** Answers every datagram with a name. Arguments: name and ports; prints "ready". */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';

const [name, ...ports] = process.argv.slice(2);
for (const port of ports) {
  const socket = createSocket('udp6');
  socket.on('message', (_, from) => {
    const text = port === ports[0] ? name : `${name}:${port}`;
    // The client may be gone, and its kernel say so.
    socket.send(text, from.port, from.address, () => undefined);
  });
  socket.on('error', () => undefined);
  socket.bind(Number(port));
  await once(socket, 'listening');
}
console.log('ready');

/**
 * Sends a datagram each 20 ms from one and the same port, and prints what becomes of them:
 * "answer NAME", "error CODE", and "sent" for each. Arguments: host, port.
 */
import { createSocket } from 'node:dgram';

const [host, port] = process.argv.slice(2);
const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4');
socket.on('message', (data) => console.log(`answer ${data}`));
socket.on('error', (error) => console.log(`error ${error.code}`));
socket.connect(Number(port), host, () => {
  setInterval(() => {
    socket.send('?', (error) => {
      if (error) console.log(`error ${error.code}`);
      else console.log('sent');
    });
  }, 20);
});

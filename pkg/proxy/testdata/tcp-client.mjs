/** Connects COUNT times; prints a JSON list of answers or error codes. Arguments: host, port, count. */
import { connect } from 'node:net';

const [host, port, count] = process.argv.slice(2);

function ask() {
  return new Promise((resolve) => {
    const socket = connect({ host, port: Number(port) });
    let text = '';
    socket.setTimeout(2000, () => socket.destroy(Object.assign(new Error(), { code: 'TIMEOUT' })));
    socket.on('data', (data) => (text += data));
    socket.on('error', (error) => resolve(error.code));
    socket.on('end', () => resolve(text.trim()));
  });
}

const answers = [];
for (let i = 0; i < Number(count); i++) answers.push(await ask());
process.stdout.write(JSON.stringify(answers));

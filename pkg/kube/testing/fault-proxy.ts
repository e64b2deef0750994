/** A TCP proxy on loopback that breaks connections the ways networks do. */
import net from 'node:net';

export interface FaultProxy extends AsyncDisposable {
  readonly port: number;
  /** Connections accepted so far. */
  readonly connections: number;
  /** Ends every open connection politely, as an idle load balancer does. */
  fin(): void;
  /** Resets every open connection. */
  rst(): void;
  /** From now on nothing passes on the open connections, and nobody is told. */
  blackHole(): void;
  /** New connections are refused until it is called with false. */
  refuse(on: boolean): Promise<void>;
}

export async function startFaultProxy(targetPort: number): Promise<FaultProxy> {
  const pairs = new Set<{ readonly client: net.Socket; readonly server: net.Socket }>();
  let connections = 0;

  const accept = (client: net.Socket): void => {
    connections += 1;
    const server = net.connect(targetPort, '127.0.0.1');
    const pair = { client, server };
    pairs.add(pair);
    client.pipe(server);
    server.pipe(client);
    for (const socket of [client, server]) {
      socket.on('error', () => undefined);
      socket.once('close', () => {
        pairs.delete(pair);
        client.destroy();
        server.destroy();
      });
    }
  };
  let listener = await listen(accept, 0);
  const { port } = listener.address() as net.AddressInfo;

  return {
    port,
    get connections() {
      return connections;
    },
    fin: () => {
      for (const { client, server } of pairs) {
        server.unpipe(client);
        client.end();
      }
    },
    rst: () => {
      for (const { client } of pairs) client.resetAndDestroy();
    },
    blackHole: () => {
      for (const { client, server } of pairs) {
        client.unpipe(server);
        server.unpipe(client);
        client.pause();
        server.pause();
      }
    },
    refuse: async (on) => {
      if (on) await close(listener);
      else listener = await listen(accept, port);
    },
    [Symbol.asyncDispose]: async () => {
      for (const { client, server } of pairs) {
        client.destroy();
        server.destroy();
      }
      if (listener.listening) await close(listener);
    },
  };
}

function listen(accept: (client: net.Socket) => void, port: number): Promise<net.Server> {
  const listener = net.createServer({ pauseOnConnect: false }, accept);
  return new Promise((resolve) => listener.listen(port, '127.0.0.1', () => resolve(listener)));
}

/** Resolves at once: open connections are not waited for, they are not the listener's. */
function close(listener: net.Server): Promise<void> {
  return new Promise((resolve) => {
    listener.close();
    setImmediate(resolve);
  });
}

/** Where an API server of a test listens: at the node's own 127.0.0.1:6443. */
import { withNetns } from '#pkg/netns/netns.ts';
import { SOCK_CLOEXEC, SOCK_STREAM } from '#pkg/sys/constants.ts';
import type { Sys } from '#pkg/sys/sys.ts';

const AF_INET = 2;

export const apiPort = 6443;

/** A socket bound in the namespace, where it stays; the server listens on it later. */
export function boundSocketIn(sys: Sys, netns: { readonly path: string }): number {
  return withNetns(
    sys,
    netns.path,
    () => {
      const fd = sys.socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      // struct sockaddr_in: the family in host order, the port in network order.
      const [high, low] = [apiPort >> 8, apiPort & 255];
      const address = Uint8Array.of(0, 0, high, low, 127, 0, 0, 1, ...new Uint8Array(8));
      new Uint16Array(address.buffer, 0, 1)[0] = AF_INET;
      sys.bind(fd, address);
      return fd;
    },
    (error) => {
      throw error;
    },
  );
}

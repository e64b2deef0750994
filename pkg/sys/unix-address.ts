/** Addresses of unix sockets, as the kernel reads them. */
import { AF_UNIX } from './constants.ts';

/**
 * struct sockaddr_un { u16 family; char path[108]; } (include/uapi/linux/un.h). A zero byte ends the path of
 * a file; an abstract name begins with one, and none ends it (unix(7)). Whoever calls sees to the length.
 */
export function unixAddress(path: string): Uint8Array {
  const bytes = Buffer.from(path.startsWith('\0') ? path : `${path}\0`);
  const address = new Uint8Array(2 + bytes.byteLength);
  address.set(new Uint8Array(Uint16Array.of(AF_UNIX).buffer));
  address.set(bytes, 2);
  return address;
}

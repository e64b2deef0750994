/** How to reach etcd, and what flannel's nodes keep there: flannel's flags `--etcd-*` as keys. */
import { z } from 'zod';
import { parseAddress, tryParseAddress, type Address, type Family } from '#pkg/ip/address.ts';

const file = z.string().regex(/^\//, 'expected an absolute path');

export const ipAddress = z
  .string()
  .refine((text) => tryParseAddress(text) !== undefined, 'expected an IP address')
  .transform(parseAddress);

const isOf =
  (family: Family) =>
  (address: Address): boolean =>
    address.family === family;

export const etcdSchema = z
  .strictObject({
    endpoints: z
      .array(
        z
          .string()
          .regex(/^(?:https?:\/\/[^/]+:\d+\/?|unix:\/\/\/.+)$/, 'expected http(s)://HOST:PORT'),
      )
      .min(1)
      .default(['http://127.0.0.1:2379']),
    /** Where flannel's keys start. */
    prefix: z
      .string()
      .regex(/^\/.*[^/]$/, 'expected a slash at the start and none at the end')
      .default('/coreos.com/network'),
    caFile: file.optional(),
    certFile: file.optional(),
    keyFile: file.optional(),
    username: z.string().min(1).optional(),
    password: z.string().optional(),
    /** A lease of 24 hours is renewed as long before its end. */
    renewMarginMinutes: z.int().min(1).max(1439).default(60),
    /** What other nodes send to, where that is no address of this host. */
    publicIP: ipAddress.refine(isOf('ip'), 'expected an IPv4 address').optional(),
    publicIPv6: ipAddress.refine(isOf('ip6'), 'expected an IPv6 address').optional(),
  })
  .refine(({ certFile, keyFile }) => (certFile === undefined) === (keyFile === undefined), {
    message: 'certFile and keyFile go together',
  });

export type EtcdConfig = Readonly<z.output<typeof etcdSchema>>;

/** Where a server of ours listens, as flags and configuration files spell it. */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { formatAddress, tryParseAddress } from '#pkg/ip/address.ts';

export interface BindAddress {
  readonly host: string;
  readonly port: number;
}

/**
 * Reads "127.0.0.1:10249", "[::]:10256" or an address without a port, which then gets the default.
 * Port 0 turns a server off, as in kube-proxy.
 *
 * @param field names the setting in the error
 * @throws {AgentError} InvalidConfig
 */
export function parseBindAddress(
  field: string,
  text: string,
  defaultPort: number,
): BindAddress | undefined {
  const [, bracketed, bare, digits] = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d{1,5}))?$/.exec(text) ?? [];
  const address = tryParseAddress(bracketed ?? bare ?? text);
  const port = digits === undefined ? defaultPort : Number(digits);
  if (address === undefined || port > 65_535) {
    throw new AgentError(
      'InvalidConfig',
      `Cannot use ${field} ${JSON.stringify(text)}: expected IP:PORT as 127.0.0.1:${defaultPort} or [::1]:${defaultPort}`,
    );
  }
  return port === 0 ? undefined : { host: formatAddress(address), port };
}

/** "127.0.0.1:9964", "[::1]:9964". */
export function formatBindAddress({ host, port }: BindAddress): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

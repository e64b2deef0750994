/** The MAC address somebody asks for. */
import { parseCniArgs } from '#pkg/cni/cni-args.ts';
import { readArgs, readRuntimeConfig } from '#pkg/cni/config.ts';
import { readString, unexpected } from '#pkg/cni/json-fields.ts';
import type { CniRequest } from '#pkg/cni/plugin.ts';

/**
 * runtimeConfig.mac before args.cni.mac before CNI_ARGS MAC before the plugin's own field; undefined
 * when nobody asks.
 *
 * @param own the value of the plugin's own field, of those that have one
 * @throws {CniError} code 7
 */
export function parseMac(request: CniRequest, own?: string): string | undefined {
  const runtime = readRuntimeConfig(request.config);
  const args = readArgs(request.config);
  const asked = [
    ['runtimeConfig.mac', runtime === undefined ? undefined : readString(runtime, 'mac')],
    ['args.cni.mac', args === undefined ? undefined : readString(args, 'mac')],
    ['CNI_ARGS MAC', parseCniArgs(request.args, ['MAC']).MAC],
    ['mac', own],
  ] as const;
  const [name, text] = asked.find(([, value]) => value !== undefined && value !== '') ?? [];
  if (name === undefined || text === undefined) return undefined;
  const mac = text.toLowerCase();
  // The lowest bit of the first byte is a group's address: no interface can have one.
  if (macText.test(mac) && Number.parseInt(mac.slice(0, 2), 16) % 2 === 0) return mac;
  throw unexpected(name, 'a MAC address as c2:11:22:33:44:55', text);
}

const macText = /^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/;

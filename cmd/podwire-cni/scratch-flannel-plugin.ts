/**
 * What flannel's CNI plugin does (github.com/flannel-io/cni-plugin, flannel_linux.go): of subnet.env
 * and its `delegate` it makes the configuration of another plugin, remembers that for DEL, and calls.
 */
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const source = `
const { spawnSync } = require('node:child_process');
const { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } = require('node:fs');
const config = JSON.parse(readFileSync(0, 'utf8'));
const { CNI_COMMAND: command, CNI_CONTAINERID: id, CNI_PATH: path } = process.env;
const kept = config.dataDir + '/' + id;

function compose() {
  const env = Object.fromEntries(
    readFileSync(config.subnetFile, 'utf8').trim().split('\\n').map((line) => line.split('=')),
  );
  // As Go's net.ParseCIDR: the network of what is written.
  const network = (text) => {
    const [address, length] = text.split('/');
    const bare = address.includes(':') ? address.replace(/::1$/, '::') : address.replace(/\\.1$/, '.0');
    return bare + '/' + length;
  };
  const families = ['FLANNEL_', 'FLANNEL_IPV6_'].filter((start) => env[start + 'SUBNET']);
  const delegate = { ...config.delegate };
  delegate.name = config.name;
  delegate.type ??= 'bridge';
  delegate.ipMasq ??= env.FLANNEL_IPMASQ !== 'true';
  delegate.mtu ??= Number(env.FLANNEL_MTU);
  if (delegate.type === 'bridge') delegate.isGateway ??= true;
  if (config.runtimeConfig) delegate.runtimeConfig = config.runtimeConfig;
  delegate.cniVersion = config.cniVersion;
  delegate.ipam = {
    type: 'host-local',
    ...config.ipam,
    ranges: families.map((start) => [{ subnet: network(env[start + 'SUBNET']) }]),
    routes: families.map((start) => ({ dst: env[start + 'NETWORK'] })),
  };
  return delegate;
}

if (command === 'DEL' && !existsSync(kept)) process.exit(0);
if (command !== 'ADD' && command !== 'DEL') process.exit(0);
const delegate = command === 'ADD' ? compose() : JSON.parse(readFileSync(kept, 'utf8'));
mkdirSync(config.dataDir, { recursive: true });
writeFileSync(kept, JSON.stringify(delegate));
const program = path.split(':').map((dir) => dir + '/' + delegate.type).find(existsSync);
const { status, stdout, stderr } = spawnSync(program, { input: JSON.stringify(delegate) });
process.stderr.write(stderr);
process.stdout.write(stdout);
if (status === 0 && command === 'DEL') rmSync(kept);
process.exitCode = status;
`;

/** Puts it into the folder as `flannel`. */
export function writeFlannelPlugin(binDir: string): void {
  const path = join(binDir, 'flannel');
  writeFileSync(path, `#!${process.execPath}\n${source}`);
  chmodSync(path, 0o755);
}

/**
 * A meta plugin as small as can be, which calls others as Multus does (multus-cni docs/configuration.md):
 * the first of `delegates` for the runtime's interface, the others for net1, net2 …, each by its own
 * name in CNI_PATH with CNI_IFNAME set; DEL backwards; the result is the first one's.
 */
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const source = `
const { spawnSync } = require('node:child_process');
const { existsSync, readFileSync } = require('node:fs');
const config = JSON.parse(readFileSync(0, 'utf8'));
const command = process.env.CNI_COMMAND;
const calls = config.delegates.map((delegate, i) => {
  const list = Array.isArray(delegate.plugins) ? delegate.plugins : [delegate];
  const ifName = i === 0 ? process.env.CNI_IFNAME : 'net' + i;
  return { config: { cniVersion: config.cniVersion, name: delegate.name, ...list[0] }, ifName };
});
if (command === 'DEL') calls.reverse();
const results = [];
for (const { config: own, ifName } of calls) {
  if (command === 'GC') own['cni.dev/valid-attachments'] = config['cni.dev/valid-attachments'];
  if (command === 'CHECK') own.prevResult = config.prevResults[ifName];
  const program = process.env.CNI_PATH.split(':').map((dir) => dir + '/' + own.type).find(existsSync);
  const env = { ...process.env, ...(command === 'GC' ? {} : { CNI_IFNAME: ifName }) };
  const { status, stdout, stderr } = spawnSync(program, { env, input: JSON.stringify(own) });
  process.stderr.write(stderr);
  if (status !== 0) {
    process.stdout.write(stdout);
    process.exit(1);
  }
  if (stdout.length > 0) results.push([ifName, JSON.parse(stdout)]);
}
if (command === 'ADD') process.stdout.write(JSON.stringify({ ...results[0][1], all: Object.fromEntries(results) }));
`;

/** Puts it into the folder as `meta`. */
export function writeMetaPlugin(binDir: string): void {
  const path = join(binDir, 'meta');
  writeFileSync(path, `#!${process.execPath}\n${source}`);
  chmodSync(path, 0o755);
}

/** What the demo needs of the machine. */
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

const tools = [
  'ip',
  'nsenter',
  'nft',
  'iptables',
  'ip6tables',
  'conntrack',
  'tcpdump',
  'openssl',
  'tee',
];

/** One sentence when the demo cannot run here; undefined when it can. */
export function missingForDemo(uid: number, path: string): string | undefined {
  if (uid !== 0) return `cannot run as user ${uid}: needs root for network namespaces`;
  const folders = path.split(delimiter).filter((folder) => folder !== '');
  const missing = tools.filter(
    (tool) => !folders.some((folder) => isExecutable(join(folder, tool))),
  );
  if (missing.length === 0) return undefined;
  return `cannot run without ${missing.join(', ')}: install them, or start with: npm run demo`;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

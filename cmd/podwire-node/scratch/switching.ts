/** Every change from one backend's configuration to another's, and what stays of the one before. */
import { families } from '#pkg/ip/address.ts';
import { nodeNames, type RoundCluster } from './rounds.ts';

/**
 * Goes from each configuration to each other one, and compares what node `a` has then with what it
 * had when it came to that configuration from none. Every difference, in words; none = all is well.
 *
 * @param configs by names for people
 */
export async function switchingProblems(
  cluster: RoundCluster,
  configs: Readonly<Record<string, string>>,
): Promise<readonly string[]> {
  const use = async (config: string): Promise<string> => {
    for (const name of nodeNames) cluster.configure(name, config);
    await cluster.settle();
    return await stateOf(cluster);
  };
  const fresh = new Map<string, string>();
  const empty = await use('backend: none');
  const problems: string[] = [];
  for (const [name, config] of Object.entries(configs)) {
    fresh.set(name, await use(config));
    const left = await use('backend: none');
    if (left !== empty) problems.push(`from ${name} to none:\n${difference(empty, left)}`);
  }
  const path = everyPair(Object.keys(configs));
  for (const [i, name] of path.entries()) {
    const before = path[i - 1];
    const [want = '', have] = [fresh.get(name), await use(configs[name] ?? '')];
    if (want !== have) problems.push(`from ${before} to ${name}:\n${difference(want, have)}`);
  }
  await use('backend: none');
  return problems;
}

/** There and back again between any two. */
function everyPair(names: readonly string[]): readonly string[] {
  return names.flatMap((name, i) => [name, ...names.slice(i + 1).flatMap((next) => [next, name])]);
}

/** What differs between two backends: devices, what is on them, routes. */
async function stateOf({ nodes }: RoundCluster): Promise<string> {
  const { netns } = nodes.a;
  const links = (await netns.ip('-br link show'))
    .split('\n')
    .map((line) => /^[^@\s]+/.exec(line)?.[0]);
  const texts: string[] = [];
  for (const link of links.filter((name) => name?.startsWith('podwire'))) {
    // Indices are new each time, and so is what a tunnel has for a hardware address.
    const device = await netns.ip(`-d link show ${link}`);
    texts.push(device.replace(/^\d+: /, '').replace(/ permaddr \S+/, ''));
    texts.push(...(await netns.ip(`-o addr show dev ${link}`)).split('\n').map(withoutIndex));
    texts.push(await netns.ip(`neigh show dev ${link} nud permanent`));
    texts.push((await netns.exec('bridge', ['fdb', 'show', 'dev', link ?? ''])).stdout);
    if (link?.startsWith('podwire-wg') !== true) continue;
    texts.push((await netns.exec('wg', ['showconf', link])).stdout);
  }
  for (const family of families) {
    texts.push(await netns.ip(`${family === 'ip' ? '-4' : '-6'} route show table main`));
  }
  return (
    texts
      .flatMap((text) => text.split('\n').map((line) => line.trim()))
      // The kernel takes its time to give a link-local address to a new device.
      .filter((line) => line !== '' && !line.includes('fe80::'))
      .toSorted()
      .join('\n')
  );
}

function withoutIndex(line: string): string {
  return line.replace(/^\d+: /, '');
}

function difference(want: string, have: string): string {
  const [wanted, found] = [want.split('\n'), have.split('\n')];
  return [
    ...wanted.filter((line) => !found.includes(line)).map((line) => `- ${line}`),
    ...found.filter((line) => !wanted.includes(line)).map((line) => `+ ${line}`),
  ].join('\n');
}

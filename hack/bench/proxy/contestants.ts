/** The proxies to compare: ways to configure this one, and another program that takes the same file. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

export interface Contestant {
  readonly name: string;
  /** What is started, before `--config`. */
  readonly command: readonly string[];
  /** What follows it. */
  readonly args: readonly string[];
  /** The part of a KubeProxyConfiguration that makes it this contestant. */
  readonly config: string;
  /** Longer than minSyncPeriod, so that each change comes to a proxy at rest. */
  readonly restMs: number;
  /** The only iptables in its PATH; 'none' for modes that use none. */
  readonly backend: 'legacy' | 'nf_tables' | 'none';
}

const dist = join(import.meta.dirname, '../../../dist/podwire-proxy');

/** This Node with the flags that a program of ours asks for in its first line. */
export function nodeProgram(path: string): readonly string[] {
  const first = existsSync(path) ? (readFileSync(path, 'utf8').split('\n', 1)[0] ?? '') : '';
  const flags = first.split(' ').filter((word) => word.startsWith('--'));
  return [process.execPath, ...flags, path];
}

const program = nodeProgram(dist);

function iptables(layout: 'compatible' | 'tree', backend: 'legacy' | 'nf_tables'): Contestant {
  const name = `iptables ${layout} ${backend}`;
  const config = `mode: iptables\niptables: { layout: ${layout}, minSyncPeriod: 1s, syncPeriod: 30s }\n`;
  return { name, command: program, args: [], config, restMs: 1_300, backend };
}

function nftables(
  name: string,
  counters: 'none' | 'services' | 'endpoints',
  traffic = false,
): Contestant {
  // kube-proxy knows neither: defaults are not spelled out.
  const counting =
    (counters === 'services' ? '' : `, counters: ${counters}`) + (traffic ? ', traffic: true' : '');
  return {
    name,
    command: program,
    // Tells of its transactions.
    args: ['-v', '2'],
    // A round costs little: it need not wait for more changes.
    config: `mode: nftables\nnftables: { minSyncPeriod: 10ms${counting} }\n`,
    restMs: 60,
    backend: 'none',
  };
}

const ours: readonly Contestant[] = [
  iptables('compatible', 'legacy'),
  iptables('tree', 'legacy'),
  iptables('compatible', 'nf_tables'),
  iptables('tree', 'nf_tables'),
  nftables('nftables', 'services'),
  nftables('nft uncounted', 'none'),
  nftables('nft endpoints counted', 'endpoints'),
  nftables('nft traffic counted', 'services', true),
  {
    name: 'ipvs',
    command: program,
    args: [],
    config: 'mode: ipvs\n',
    restMs: 1_300,
    backend: 'none',
  },
];

/**
 * Those whose name contains one of `modes`; with a peer, each followed by the peer in its mode.
 *
 * @param peer path of a kube-proxy executable
 */
export function contestants(modes: readonly string[], peer: string | undefined): Contestant[] {
  if (!existsSync(dist))
    throw new Error('Cannot measure: expected dist/, which npm run build makes');
  const chosen = ours.filter(({ name }) => modes.some((mode) => name.includes(mode)));
  if (peer === undefined) return chosen;
  const peers = chosen
    .filter(({ name }) => !name.includes('tree'))
    .map((own): Contestant => {
      const name = `peer: ${own.name.replace('compatible ', '')}`;
      return {
        ...own,
        name,
        command: [peer],
        args: [],
        config: own.config.replace('layout: compatible, ', ''),
      };
    });
  return chosen.flatMap((own) => [
    own,
    ...peers.filter(({ config }) => sameMode(config, own.config)),
  ]);
}

function sameMode(peer: string, own: string): boolean {
  return peer === own.replace('layout: compatible, ', '');
}

const families = ['iptables', 'ip6tables'];
const parts = ['', '-save', '-restore'];

/** A directory whose programs are the iptables of one backend, under every name they go by. */
export class IptablesPath {
  readonly dir: string;
  readonly #backend: Contestant['backend'];
  readonly #inputs: string;

  constructor(dir: string, backend: Contestant['backend']) {
    this.dir = join(dir, backend);
    this.#backend = backend;
    this.#inputs = join(this.dir, 'inputs');
    mkdirSync(this.dir, { recursive: true });
    this.plain();
  }

  /** From now on the text of each restore is kept in {@link inputs}, which takes some milliseconds. */
  keepInputs(): string {
    for (const name of this.#names('-restore')) {
      rmSync(join(this.dir, name), { force: true });
      const run = `exec -a ${name} ${this.#program} "$@"`;
      // Under --test nothing is written.
      const test = `case " $* " in *" --test "*) ${run};; esac`;
      const script = `#!/bin/bash\n${test}\n/usr/bin/tee -a ${this.#inputs} | ${run}\n`;
      writeFileSync(join(this.dir, name), script);
      chmodSync(join(this.dir, name), 0o755);
    }
    return this.#inputs;
  }

  /** Ends {@link keepInputs}. */
  plain(): void {
    if (this.#backend === 'none') return;
    for (const name of parts.flatMap((part) => this.#names(part))) {
      rmSync(join(this.dir, name), { force: true });
      symlinkSync(this.#program, join(this.dir, name));
    }
  }

  get #program(): string {
    return `/usr/sbin/xtables-${this.#backend === 'legacy' ? 'legacy' : 'nft'}-multi`;
  }

  #names(part: string): string[] {
    const suffix = this.#backend === 'legacy' ? '-legacy' : '-nft';
    return families.flatMap((family) => [`${family}${part}`, `${family}${suffix}${part}`]);
  }
}

/** iptables of one backend inside a scratch namespace. */
import { AgentError, messageOf } from '#pkg/errors/agent-error.ts';
import { families, type Family } from '#pkg/ip/address.ts';
import { detectIptables, type Backend, type IptablesTool } from '#pkg/iptables/detect.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';

export interface BackendProbe {
  readonly backend: Backend;
  /** For the name of a test: says why it is skipped, when it is. */
  readonly title: string;
  readonly usable: boolean;
}

/** Which backends this machine's tools and kernel have. */
export async function probeBackends(): Promise<BackendProbe[]> {
  await using netns = await createScratchNetns('pw-iptables-probe');
  const probes: BackendProbe[] = [];
  for (const backend of ['legacy', 'nf_tables'] as const) {
    const reason = await scratchTools(netns, backend).then(
      () => undefined,
      (error: unknown) => messageOf(error),
    );
    const title = reason === undefined ? backend : `${backend} (skipped: ${reason})`;
    probes.push({ backend, title, usable: reason === undefined });
  }
  return probes;
}

/** Both families' tools of the backend that this machine's iptables has by default. */
export async function usualTools(netns: ScratchNetns): Promise<(family: Family) => IptablesTool> {
  const { stdout } = await netns.exec('iptables', ['--version']);
  return await scratchTools(netns, stdout.includes('nf_tables') ? 'nf_tables' : 'legacy');
}

/** Both families' tools of one backend; rejects where the machine or its kernel lacks it. */
export async function scratchTools(
  netns: ScratchNetns,
  backend: Backend,
): Promise<(family: Family) => IptablesTool> {
  const hidden = backend === 'legacy' ? '-nft' : '-legacy';
  const { tools, failures } = await detectIptables((file, args, options) => {
    if (file.includes(hidden)) {
      return Promise.reject(new AgentError('CommandMissing', `Cannot run ${file}: hidden`));
    }
    return netns.exec(file, args, options);
  }, new AbortController().signal);
  const found = (family: Family): IptablesTool => {
    const tool = tools.get(family);
    if (tool?.backend === backend) return tool;
    throw failures.get(family) ?? new AgentError('BackendMissing', `Cannot use ${backend}`);
  };
  families.forEach(found);
  return found;
}

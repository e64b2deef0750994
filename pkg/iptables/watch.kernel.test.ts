import { execFileSync } from 'node:child_process';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Family } from '#pkg/ip/address.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { ruleset } from '#pkg/proxy/testdata/records.ts';
import { sixServices } from '#pkg/proxy/testdata/six-services.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { applyIptables } from './apply.ts';
import type { IptablesTool } from './detect.ts';
import { observeIptables } from './observe.ts';
import { planIptables, type Step } from './plan.ts';
import { probeIptables } from './probe.ts';
import { probeBackends, scratchTools } from './testdata/scratch-tools.ts';
import { watchIptables, type IptablesWatch } from './watch.ts';

const [legacy, nft] = await probeBackends();
const sys = await openSys();
const signal = new AbortController().signal;
const die = (error: Error): never => {
  throw error;
};

let netns: ScratchNetns;
beforeEach(async () => {
  netns = await createScratchNetns('pw-iptwatch');
});
afterEach(() => netns[Symbol.asyncDispose]());

async function writeRules(tool: IptablesTool): Promise<number> {
  const want = ruleset(sixServices, { family: tool.family });
  return await applyIptables(tool, planIptables(want, await observeIptables(tool, signal)), signal);
}

describe.skipIf(nft?.usable !== true)(`watchIptables(), backend ${nft?.title}`, () => {
  let watch: IptablesWatch;
  let tool: IptablesTool;
  let told: Family[];

  beforeEach(async () => {
    told = [];
    const toolOf = await scratchTools(netns, 'nf_tables');
    tool = toolOf('ip');
    const tools = [tool, toolOf('ip6')];
    watch = withNetns(
      sys,
      netns.path,
      () => watchIptables(sys, tools, (family) => told.push(family)),
      die,
    );
    await watch.exempt(() => writeRules(tool));
  });
  afterEach(() => watch[Symbol.dispose]());

  it.each([
    ['-t nat -F', 'ip'],
    ['-t nat -D KUBE-SERVICES 1', 'ip'],
    ['-t nat -A KUBE-SERVICES -j RETURN', 'ip'],
    ['-t filter -D FORWARD 1', 'ip'],
    ['-t mangle -X KUBE-PROXY-CANARY', 'ip'],
  ])('tells of iptables %s', async (words, family) => {
    await netns.exec('iptables-nft', words.split(' '));
    await expect.poll(() => told).toEqual([family]);
  });

  it('is silent about our own writes and what others add, not about theirs beside ours', async () => {
    await netns.exec('iptables-nft', ['-t', 'nat', '-N', 'DOCKER']);
    await netns.exec('iptables-nft', ['-t', 'nat', '-I', 'PREROUTING', '-j', 'DOCKER']);
    await netns.exec('nft', ['add', 'table', 'ip', 'podwire-test']);
    await watch.exempt(async () => {
      await tool.run(tool.restore, ['--noflush'], {
        input: '*nat\n:KUBE-SERVICES - [0:0]\nCOMMIT\n',
        timeoutMs: 10_000,
        signal,
      });
      // Everything up to now has been looked at, in the next line's look.
      return 1;
    });
    expect(told).toEqual([]);
    await watch.exempt(async () => {
      await netns.exec('iptables-nft', ['-t', 'nat', '-F', 'KUBE-POSTROUTING']);
      return 1;
    });
    expect(told).toEqual(['ip']);
  });

  it('is silent when others delete rules of their own from built-in chains', async () => {
    const rules = ['-j MASQUERADE', '-s 10.0.0.1 -j DOCKER', '-m comment --comment KUBE-x'];
    await netns.exec('iptables-nft', ['-t', 'nat', '-N', 'DOCKER']);
    for (const op of ['-A', '-D']) {
      for (const rule of rules) {
        const words = ['-t', 'nat', op, 'POSTROUTING', ...rule.split(' ')];
        await netns.exec('iptables-nft', words);
      }
    }
    await watch.exempt(() => Promise.resolve(0));
    expect(told).toEqual([]);
    await netns.exec('iptables-nft', ['-t', 'nat', '-D', 'OUTPUT', '1']);
    await expect.poll(() => told).toEqual(['ip']);
  });

  it('is silent about a write of ours larger than its socket, not about theirs meanwhile', async () => {
    // Of several transactions, each of which is told.
    const steps = Array.from({ length: 800 }, (_, c): Step => {
      const rules = Array.from({ length: 50 }, (__, i) => `-s 10.${c >> 8}.${c & 255}.${i}/32`);
      return { op: 'put-chain', table: 'nat', chain: `KUBE-LARGE-${c}`, rules };
    });
    // Nobody looks while a program runs: the socket overflows for sure, and nothing is told between.
    const run = (file: string, args: readonly string[], input = ''): string => {
      const command = [`--net=${netns.path}`, file, ...args];
      return execFileSync('nsenter', command, { input, encoding: 'utf8' });
    };
    const deaf: IptablesTool = {
      ...tool,
      run: async (file, args, { input }) => ({ stdout: run(file, args, input), stderr: '' }),
    };
    const restore = async (): Promise<number> => {
      const transactions = await applyIptables(deaf, steps, signal);
      expect(transactions).toBeGreaterThan(1);
      return transactions;
    };
    await watch.exempt(restore);
    expect(told).toEqual([]);
    await watch.exempt(async () => {
      const transactions = await restore();
      run('iptables-nft', ['-t', 'nat', '-F', 'KUBE-POSTROUTING']);
      return transactions;
    });
    // Which it was cannot be known.
    expect(told.toSorted()).toEqual(['ip', 'ip6']);
  });

  it('tells of the same program outside our own writes', async () => {
    await writeRules(tool);
    await netns.exec('iptables-nft', ['-t', 'nat', '-F', 'KUBE-POSTROUTING']);
    await expect.poll(() => told.length).toBeGreaterThan(0);
    told.length = 0;
    await writeRules(tool);
    await expect.poll(() => told).toEqual(['ip']);
  });
});

describe.skipIf(legacy?.usable !== true)(`probeIptables(), backend ${legacy?.title}`, () => {
  it.each(['-t nat -F', '-t filter -F', '-t filter -D OUTPUT 1', '-t nat -F KUBE-POSTROUTING'])(
    'is false after iptables %s, and true before',
    async (words) => {
      const tool = (await scratchTools(netns, 'legacy'))('ip');
      await writeRules(tool);
      const want = ruleset(sixServices, { family: 'ip' });
      expect(await probeIptables(tool, want, signal)).toBe(true);
      const before = (await netns.exec('iptables-legacy-save', [])).stdout;
      // The lock is the whole machine's: other tests may hold it.
      await netns.exec('iptables-legacy', ['-w', '10', ...words.split(' ')]);
      expect(await probeIptables(tool, want, signal)).toBe(false);
      await writeRules(tool);
      const after = (await netns.exec('iptables-legacy-save', [])).stdout;
      const rules = (text: string): string => text.replaceAll(/^#.*\n?|\[\d+:\d+\]/gm, '');
      expect(rules(after)).toBe(rules(before));
    },
  );

  it('rejects when the tool cannot run', async () => {
    const tool = (await scratchTools(netns, 'legacy'))('ip');
    const want = ruleset(sixServices, { family: 'ip' });
    const broken = { ...tool, restore: 'podwire-no-such-program' };
    await expect(probeIptables(broken, want, signal)).rejects.toThrow();
  });
});

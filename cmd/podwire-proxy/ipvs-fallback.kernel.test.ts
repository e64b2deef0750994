/** Mode ipvs where the kernel has no IPVS; in the VM it has, and `ipvs.vm.test.ts` shows that mode. */
import { appendFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { messageOf } from '#pkg/errors/agent-error.ts';
import { runCommand } from '#pkg/exec/run.ts';
import { createScratchNetns } from '#pkg/netns/scratch.ts';
import { createProxiedNode, nodeName, type ProxiedNode } from './scratch/proxied-node.ts';

const slow = { timeout: 60_000, interval: 100 };

/** Undefined where there is IPVS. */
async function whyNoIpvs(): Promise<string | undefined> {
  await using netns = await createScratchNetns('pw-ipvs-probe');
  return await runCommand('ip', ['netns', 'exec', netns.name, 'ipvsadm', '--list'], {
    timeoutMs: 20_000,
  }).then(
    () => undefined,
    (error: unknown) => messageOf(error),
  );
}

describe.skipIf((await whyNoIpvs()) === undefined)('without IPVS (skipped: has it)', () => {
  let node: ProxiedNode;
  beforeEach(async () => {
    node = await createProxiedNode();
    await appendFile(node.configPath, 'mode: ipvs\n');
  });
  afterEach(() => node[Symbol.asyncDispose]());

  it('Services are served by iptables, with one line in the log and an Event', async () => {
    const daemon = node.startDaemon();
    await expect
      .poll(async () => (await node.save('ip')) || daemon.log(), slow)
      .toContain(':KUBE-POSTROUTING');
    const lines = daemon
      .log()
      .split('\n')
      .filter((line) => line.includes('Mode ipvs is not'));
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(/Cannot use IPVS here: no virtual servers/);
    expect((await node.ask('http://127.0.0.1:10249/proxyMode')).body).toBe('iptables');
    const events = (): string =>
      JSON.stringify(node.api.objects.list({ apiVersion: 'v1', kind: 'Event' }).items);
    await expect.poll(events, slow).toContain('IPVSUnusable');
    expect(events()).toContain('serving Services by iptables instead');
  });

  it('--strict-mode fails, and writes nothing', async () => {
    const flags = ['--config', node.configPath, '--hostname-override', nodeName, '--strict-mode'];
    const daemon = node.startDaemon(flags);
    expect(await daemon.exited).toBe(1);
    await expect.poll(() => daemon.log()).toContain('Cannot use IPVS here');
    expect(await node.save('ip')).not.toContain('KUBE-');
  });
});

/** What of proxies is in the kernel, and of which mode it is. */
import { readFileSync } from 'node:fs';
import type { ProxyMode } from '#pkg/config/proxy-config.ts';
import { runCommand } from '#pkg/exec/run.ts';

export interface Found {
  /** "iptables-nft-save nat -A KUBE-SERVICES …", without counters and the guard of 127.0.0.0/8. */
  readonly rules: readonly string[];
  readonly sets: readonly string[];
  readonly servers: readonly string[];
  readonly tables: readonly string[];
  readonly hasDevice: boolean;
}

/** All that proxies put into the kernel, in this process's namespace. */
export async function found(): Promise<Found> {
  const lines = (text: string): string[] => text.split('\n').filter((line) => line !== '');
  const rules = [];
  const tools = ['iptables-nft-save', 'ip6tables-nft-save'];
  const [sets, servers, tables, ...saves] = await Promise.all([
    out('ipset', 'list', '-n'),
    out('ipvsadm', '-S', '-n'),
    out('nft', 'list', 'tables'),
    ...tools.map((tool) => out(tool)),
  ]);
  for (const [i, tool] of tools.entries()) {
    let table = '';
    for (const line of lines(saves[i] ?? '')) {
      if (line.startsWith('*')) table = line.slice(1);
      // It stays, once there, since the setting does that makes it needed.
      if (line.includes('KUBE-FIREWALL')) continue;
      if (line.includes('KUBE-')) rules.push(`${tool} ${table} ${line.replace(/ \[.*/, '')}`);
    }
  }
  return {
    rules: rules.toSorted(),
    sets: lines(sets).toSorted(),
    servers: lines(servers).toSorted(),
    tables: lines(tables).filter((line) => line.includes('proxy')),
    hasDevice: networkDevices().includes('kube-ipvs0'),
  };
}

function networkDevices(): string[] {
  return (
    readFileSync('/proc/net/dev', 'utf8')
      .match(/^ *[^:\n]+(?=:)/gm)
      ?.map((name) => name.trim()) ?? []
  );
}

/** What a program prints. */
export async function out(file: string, ...args: readonly string[]): Promise<string> {
  return (await runCommand(file, args, { timeoutMs: 240_000 })).stdout;
}

/** What is of a mode, by what only that mode has. */
export function modesIn({ hasDevice, rules, servers, sets, tables }: Found): ProxyMode[] {
  const has = (pattern: RegExp): boolean => rules.some((line) => pattern.test(line));
  const modes: ProxyMode[] = [];
  if (has(/KUBE-(?:(?:SVC|SVL|SEP|EXT|FW|SVT)-|NODEPORTS|EXTERNAL-SERVICES)/))
    modes.push('iptables');
  const isIpvs = has(/KUBE-(?:IPVS|NODE-PORT|LOAD-BALANCER|SOURCE-RANGES)|match-set/);
  if (isIpvs || hasDevice || servers.length + sets.length > 0) modes.push('ipvs');
  if (tables.length > 0) modes.push('nftables');
  return modes;
}

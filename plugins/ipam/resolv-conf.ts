/** A resolv.conf file as CNI's `dns` object (resolv.conf(5)). */
import type { CniDns } from '#pkg/cni/result.ts';

/** Reads name servers, domain, search list and options; comments and other keywords are skipped. */
export function parseResolvConf(text: string): CniDns {
  const nameservers: string[] = [];
  const options: string[] = [];
  let domain: string | undefined;
  let search: readonly string[] = [];
  for (const line of text.split('\n')) {
    if (/^\s*[#;]/.test(line)) continue;
    const [keyword, ...values] = line.trim().split(/\s+/);
    const [value] = values;
    if (value === undefined) continue;
    if (keyword === 'nameserver') nameservers.push(value);
    else if (keyword === 'domain') domain = value;
    else if (keyword === 'search') search = values;
    else if (keyword === 'options') options.push(...values);
  }
  return { nameservers, domain, search, options };
}

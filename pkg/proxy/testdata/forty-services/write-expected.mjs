/* oxlint-disable max-params -- a plain script, read beside the layout it describes */
/**
 * Writes ip.txt and ip6.txt: what `iptables-save` should show for the 40 Services of
 * make-cluster.mjs on a node. It was written from a description of kube-proxy's layout (names,
 * comments, order, options of each rule), not from the renderer in pkg/proxy, and shares no code
 * with it: own hashing, own reading of API objects, own rule text. When the two differ, find out
 * which one is wrong by kube-proxy's source (pkg/proxy/iptables/proxier.go), then change that one.
 *
 * Run: node pkg/proxy/testdata/forty-services/write-expected.mjs
 */
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { isIPv6 } from 'node:net';
import { cluster } from './make-cluster.mjs';

const NODE = 'this-node';
const ZONE = 'z1';
const NODE_IP = { IPv4: '192.168.0.2', IPv6: 'fd00:192::2' };
const CLUSTER_CIDR = { IPv4: '10.0.0.0/8', IPv6: 'fd00:10::/64' };
const MARK = '0x4000';

// ---- names ----

/** base32 of RFC 4648, by the bits. */
function base32(bytes) {
  const bits = [...bytes].map((b) => b.toString(2).padStart(8, '0')).join('');
  return bits
    .match(/.{5}/g)
    .map((five) => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'[parseInt(five, 2)])
    .join('');
}
const hash16 = (text) => base32(createHash('sha256').update(text).digest()).slice(0, 16);

// ---- reading the API ----

const decimal = (ip) => (isIPv6(ip) ? ip : ip.split('.').map((part) => `${Number(part)}`).join('.'));
const isOf = (family, ip) => ip.includes(':') === (family === 'IPv6');

function bigOf(ip) {
  if (!ip.includes(':')) return ip.split('.').reduce((n, part) => n * 256n + BigInt(part), 0n);
  const [head, tail = ''] = ip.split('::');
  const left = head === '' ? [] : head.split(':');
  const right = tail === '' ? [] : tail.split(':');
  const zeros = ip.includes('::') ? Array(8 - left.length - right.length).fill('0') : [];
  return [...left, ...zeros, ...right].reduce((n, part) => n * 65536n + BigInt(`0x${part}`), 0n);
}

/** A range with its host bits zero; only IPv4 ranges of the fixture have any. */
function network(cidr) {
  const [ip, length] = cidr.trim().split('/');
  if (ip.includes(':')) return `${ip}/${length}`;
  const hostBits = BigInt(32 - Number(length));
  const n = (bigOf(ip) >> hostBits) << hostBits;
  return `${[24n, 16n, 8n, 0n].map((shift) => (n >> shift) & 255n).join('.')}/${length}`;
}

function contains(cidr, ip) {
  const [start, length] = cidr.split('/');
  const hostBits = BigInt((ip.includes(':') ? 128 : 32) - Number(length));
  return bigOf(start) >> hostBits === bigOf(ip) >> hostBits;
}

function endpointsOf(service, port, family) {
  const { namespace, name } = service.metadata;
  const found = new Map();
  for (const slice of cluster.slices) {
    if (slice.metadata.namespace !== namespace) continue;
    if (slice.metadata.labels['kubernetes.io/service-name'] !== name) continue;
    if (slice.addressType !== family) continue;
    for (const slicePort of slice.ports) {
      if (slicePort.name !== (port.name ?? '') || slicePort.protocol !== port.protocol) continue;
      for (const e of slice.endpoints) {
        const ip = decimal(e.addresses[0]);
        const { ready = true, serving = true, terminating = false } = e.conditions ?? {};
        found.set(family === 'IPv6' ? `[${ip}]:${slicePort.port}` : `${ip}:${slicePort.port}`, {
          ip,
          ready,
          serving,
          terminating,
          local: e.nodeName === NODE,
          zones: e.hints?.forZones?.map((h) => h.name),
          nodes: e.hints?.forNodes?.map((h) => h.name),
        });
      }
    }
  }
  return [...found].sort(([a], [b]) => (a < b ? -1 : 1)).map(([target, e]) => ({ target, ...e }));
}

function byTopology(ready) {
  if (ready.every((e) => e.nodes) && ready.some((e) => e.nodes.includes(NODE)))
    return ready.filter((e) => e.nodes.includes(NODE));
  if (ready.every((e) => e.zones) && ready.some((e) => e.zones.includes(ZONE)))
    return ready.filter((e) => e.zones.includes(ZONE));
  return ready;
}

/** Everything one service port amounts to in a family; undefined when it is not served there. */
function servicePort(service, port, family) {
  const { spec, status, metadata } = service;
  if (spec.type === 'ExternalName' || spec.clusterIP === 'None') return undefined;
  const clusterIP = spec.clusterIPs[spec.ipFamilies.indexOf(family)];
  if (clusterIP === undefined) return undefined;
  const all = endpointsOf(service, port, family);
  const ready = all.filter((e) => e.ready);
  const fallback = all.filter((e) => e.serving && e.terminating);
  const externalIPs = (spec.externalIPs ?? []).map(decimal).filter((ip) => isOf(family, ip));
  const lbIPs = (status.loadBalancer.ingress ?? [])
    .filter((i) => i.ip !== undefined && i.ipMode !== 'Proxy')
    .map((i) => i.ip)
    .filter((ip) => isOf(family, ip));
  let ranges = (spec.loadBalancerSourceRanges ?? [])
    .map(network)
    .filter((cidr) => isOf(family, cidr));
  if (ranges.some((cidr) => cidr.endsWith('/0'))) ranges = [];
  const itpLocal = spec.internalTrafficPolicy === 'Local';
  const etpLocal = spec.externalTrafficPolicy === 'Local';
  const external = Boolean(port.nodePort) || externalIPs.length > 0 || lbIPs.length > 0;
  const localReady = ready.filter((e) => e.local);
  const localEps = localReady.length > 0 ? localReady : fallback.filter((e) => e.local);
  const needsCluster = !itpLocal || external;
  const needsLocal = itpLocal || (etpLocal && external);
  const print = `${metadata.namespace}/${metadata.name}${port.name ? `:${port.name}` : ''}`;
  const proto = port.protocol.toLowerCase();
  const hash = hash16(print + proto);
  return {
    family,
    print,
    proto,
    port: port.port,
    clusterIP: decimal(clusterIP),
    externalIPs,
    lbIPs,
    ranges,
    nodePort: port.nodePort,
    itpLocal,
    etpLocal,
    external,
    affinity:
      spec.sessionAffinity === 'ClientIP' ? spec.sessionAffinityConfig.clientIP.timeoutSeconds : 0,
    healthCheck: spec.type === 'LoadBalancer' && etpLocal ? spec.healthCheckNodePort : undefined,
    clusterEps: !needsCluster ? [] : ready.length > 0 ? byTopology(ready) : fallback,
    localEps: needsLocal ? localEps : [],
    hasAny: ready.length > 0 || fallback.length > 0,
    SVC: `KUBE-SVC-${hash}`,
    SVL: `KUBE-SVL-${hash}`,
    EXT: `KUBE-EXT-${hash}`,
    FW: `KUBE-FW-${hash}`,
    sep: (e) => `KUBE-SEP-${hash16(print + proto + e.target)}`,
  };
}

// ---- rule text, as iptables-save prints it ----

const note = (text) => `-m comment --comment "${text}"`;
const host = (ip) => `${ip}/${ip.includes(':') ? 128 : 32}`;
const to = (p, ip, dport, text, jump) =>
  `-d ${host(ip)} -p ${p.proto} ${note(text)} -m ${p.proto} --dport ${dport} -j ${jump}`;

/** Ten decimals as kube-proxy writes them; the kernel keeps 31 bits of it, printed with eleven. */
function probability(n) {
  const written = Number((1 / n).toFixed(10));
  return (Math.round(written * 2147483648) / 2147483648).toFixed(11);
}

function write(family) {
  const v6 = family === 'IPv6';
  const tables = {
    filter: { INPUT: [], FORWARD: [], OUTPUT: [] },
    nat: { PREROUTING: [], OUTPUT: [], POSTROUTING: [] },
    mangle: {},
  };
  const put = (table, chain, ...rules) => (tables[table][chain] ??= []).push(...rules);
  // Jumps go to the head, one after the other: the last one ends up first.
  const insert = (table, froms, jump, text, extra = '') => {
    for (const from of froms)
      tables[table][from].unshift(`${extra}${text === '' ? '' : `${note(text)} `}-j ${jump}`);
  };
  const fresh = '-m conntrack --ctstate NEW ';
  insert('filter', ['INPUT', 'FORWARD'], 'KUBE-EXTERNAL-SERVICES', 'kubernetes externally-visible service portals', fresh);
  insert('filter', ['INPUT'], 'KUBE-NODEPORTS', 'kubernetes health check service ports');
  insert('filter', ['FORWARD', 'OUTPUT'], 'KUBE-SERVICES', 'kubernetes service portals', fresh);
  insert('filter', ['FORWARD'], 'KUBE-FORWARD', 'kubernetes forwarding rules');
  insert('filter', ['INPUT', 'OUTPUT', 'FORWARD'], 'KUBE-PROXY-FIREWALL', 'kubernetes load balancer firewall', fresh);
  insert('nat', ['OUTPUT', 'PREROUTING'], 'KUBE-SERVICES', 'kubernetes service portals');
  insert('nat', ['POSTROUTING'], 'KUBE-POSTROUTING', 'kubernetes postrouting rules');
  if (!v6) insert('filter', ['INPUT', 'OUTPUT'], 'KUBE-FIREWALL', '');

  for (const table of ['filter', 'nat', 'mangle']) put(table, 'KUBE-PROXY-CANARY');
  for (const chain of ['KUBE-SERVICES', 'KUBE-EXTERNAL-SERVICES', 'KUBE-NODEPORTS', 'KUBE-PROXY-FIREWALL'])
    put('filter', chain);
  for (const chain of ['KUBE-SERVICES', 'KUBE-NODEPORTS']) put('nat', chain);

  put('nat', 'KUBE-MARK-MASQ', `-j MARK --set-xmark ${MARK}/${MARK}`);
  put(
    'nat',
    'KUBE-POSTROUTING',
    `-m mark ! --mark ${MARK}/${MARK} -j RETURN`,
    `-j MARK --set-xmark ${MARK}/0x0`,
    `${note('kubernetes service traffic requiring SNAT')} -j MASQUERADE --random-fully`,
  );
  put(
    'filter',
    'KUBE-FORWARD',
    '-m conntrack --ctstate INVALID -j DROP',
    `${note('kubernetes forwarding rules')} -m mark --mark ${MARK}/${MARK} -j ACCEPT`,
    `${note('kubernetes forwarding conntrack rule')} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`,
  );
  if (!v6)
    put(
      'filter',
      'KUBE-FIREWALL',
      `! -s 127.0.0.0/8 -d 127.0.0.0/8 ${note('block incoming localnet connections')} -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP`,
    );

  const ports = cluster.services
    .flatMap((s) => s.spec.ports.map((port) => servicePort(s, port, family)))
    .filter((p) => p !== undefined)
    // Among Services kube-proxy has no order; ours is by name.
    .sort((a, b) => (a.print === b.print ? (a.proto < b.proto ? -1 : 1) : a.print < b.print ? -1 : 1));
  for (const p of ports) writePort(p, put, v6);

  put(
    'nat',
    'KUBE-SERVICES',
    `${v6 ? '! -d ::1/128 ' : ''}${note('kubernetes service nodeports; NOTE: this must be the last rule in this chain')} -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS`,
  );

  const lines = [
    `# What iptables-save shows of the proxy's rules (${family}) for the Services of make-cluster.mjs.`,
    '# Written by write-expected.mjs from the description of the layout, not by the proxy.',
  ];
  for (const [table, chains] of Object.entries(tables)) {
    const ours = Object.keys(chains).filter((c) => c.startsWith('KUBE-')).sort();
    const builtIn = Object.keys(chains).filter((c) => !c.startsWith('KUBE-'));
    lines.push(`*${table}`, ...ours.map((c) => `:${c} - [0:0]`));
    for (const chain of [...builtIn, ...ours]) for (const rule of chains[chain]) lines.push(`-A ${chain} ${rule}`);
    lines.push('COMMIT');
  }
  return `${lines.join('\n')}\n`;
}

function writePort(p, put, v6) {
  const hasInternal = p.hasAny && (!p.itpLocal || p.localEps.length > 0);
  const hasExternal = p.hasAny && (!p.etpLocal || p.localEps.length > 0);
  const guarded = p.hasAny && p.lbIPs.length > 0 && p.ranges.length > 0;
  const policyChain = p.itpLocal ? p.SVL : p.SVC;
  const none = p.hasAny ? 'has no local endpoints' : 'has no endpoints';
  const refusal = p.hasAny ? 'DROP' : `REJECT --reject-with ${v6 ? 'icmp6' : 'icmp'}-port-unreachable`;

  // The shared chains.
  if (hasInternal) put('nat', 'KUBE-SERVICES', to(p, p.clusterIP, p.port, `${p.print} cluster IP`, policyChain));
  else put('filter', 'KUBE-SERVICES', to(p, p.clusterIP, p.port, `${p.print} ${none}`, refusal));
  if (p.hasAny) {
    for (const ip of p.externalIPs) put('nat', 'KUBE-SERVICES', to(p, ip, p.port, `${p.print} external IP`, p.EXT));
    for (const ip of p.lbIPs)
      put('nat', 'KUBE-SERVICES', to(p, ip, p.port, `${p.print} loadbalancer IP`, guarded ? p.FW : p.EXT));
    if (p.nodePort)
      put('nat', 'KUBE-NODEPORTS', `-p ${p.proto} ${note(p.print)} -m ${p.proto} --dport ${p.nodePort} -j ${p.EXT}`);
  }
  if (!hasExternal) {
    for (const ip of [...p.externalIPs, ...p.lbIPs])
      put('filter', 'KUBE-EXTERNAL-SERVICES', to(p, ip, p.port, `${p.print} ${none}`, refusal));
    if (p.nodePort)
      put(
        'filter',
        'KUBE-EXTERNAL-SERVICES',
        `-p ${p.proto} ${note(`${p.print} ${none}`)} -m addrtype --dst-type LOCAL -m ${p.proto} --dport ${p.nodePort} -j ${refusal}`,
      );
  }
  if (guarded)
    for (const ip of p.lbIPs)
      put('filter', 'KUBE-PROXY-FIREWALL', to(p, ip, p.port, `${p.print} traffic not accepted by ${p.FW}`, 'DROP'));
  if (p.healthCheck)
    put(
      'filter',
      'KUBE-NODEPORTS',
      `-p tcp ${note(`${p.print} health check node port`)} -m tcp --dport ${p.healthCheck} -j ACCEPT`,
    );
  if (!p.hasAny) return;

  // Its own chains.
  const pods = CLUSTER_CIDR[p.family];
  if (hasInternal)
    put('nat', policyChain, `! -s ${pods} ${to(p, p.clusterIP, p.port, `${p.print} cluster IP`, 'KUBE-MARK-MASQ')}`);
  const balance = (chain, endpoints) => {
    const text = (e) => note(`${p.print} -> ${e.target}`);
    if (p.affinity > 0)
      for (const e of endpoints)
        put('nat', chain, `${text(e)} -m recent --rcheck --seconds ${p.affinity} --reap --name ${p.sep(e)} --mask ${mask(v6)} --rsource -j ${p.sep(e)}`);
    endpoints.forEach((e, i) => {
      const left = endpoints.length - i;
      const chance = left > 1 ? ` -m statistic --mode random --probability ${probability(left)}` : '';
      put('nat', chain, `${text(e)}${chance} -j ${p.sep(e)}`);
    });
  };
  balance(p.SVC, p.clusterEps);
  balance(p.SVL, p.localEps);
  for (const e of new Map([...p.clusterEps, ...p.localEps].map((x) => [x.target, x])).values()) {
    const remember = p.affinity > 0 ? ` -m recent --set --name ${p.sep(e)} --mask ${mask(v6)} --rsource` : '';
    put(
      'nat',
      p.sep(e),
      `-s ${host(e.ip)} ${note(p.print)} -j KUBE-MARK-MASQ`,
      `-p ${p.proto} ${note(p.print)}${remember} -m ${p.proto} -j DNAT --to-destination ${e.target}`,
    );
  }
  if (p.external) {
    const destinations = `${p.print} external destinations`;
    if (p.etpLocal) {
      put(
        'nat',
        p.EXT,
        `-s ${pods} ${note(`pod traffic for ${destinations}`)} -j ${p.SVC}`,
        `${note(`masquerade LOCAL traffic for ${destinations}`)} -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ`,
        `${note(`route LOCAL traffic for ${destinations}`)} -m addrtype --src-type LOCAL -j ${p.SVC}`,
      );
      if (p.localEps.length > 0) put('nat', p.EXT, `-j ${p.SVL}`);
    } else {
      put('nat', p.EXT, `${note(`masquerade traffic for ${destinations}`)} -j KUBE-MARK-MASQ`, `-j ${p.SVC}`);
    }
  }
  if (guarded) {
    const text = note(`${p.print} loadbalancer IP`);
    for (const cidr of p.ranges) put('nat', p.FW, `-s ${cidr} ${text} -j ${p.EXT}`);
    if (p.ranges.some((cidr) => contains(cidr, NODE_IP[p.family])))
      for (const ip of p.lbIPs) put('nat', p.FW, `-s ${host(ip)} ${text} -j ${p.EXT}`);
    put('nat', p.FW, note(`other traffic to ${p.print} will be dropped by KUBE-PROXY-FIREWALL`));
  }
}

const mask = (v6) => (v6 ? 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff' : '255.255.255.255');

writeFileSync(`${import.meta.dirname}/ip.txt`, write('IPv4'));
writeFileSync(`${import.meta.dirname}/ip6.txt`, write('IPv6'));

/** The API server of the benchmark, in a process of its own: `serve.ts NODES`. */
import { createInterface } from 'node:readline';
import { startEmbeddedApi } from '#pkg/embedded-api/embedded-api.ts';
import { nodeAnnotations, peerOf, selfName } from './cluster.ts';

const count = Number(process.argv[2]);
await using api = await startEmbeddedApi({ listen: [{ host: '127.0.0.1', port: 6443 }] });
for (let n = 0; n < count; n++) {
  const { name, podCIDR, ip, mac } = peerOf(n);
  const annotations = name === selfName ? {} : nodeAnnotations(ip, mac);
  const metadata = { name, annotations };
  api.objects.create({ apiVersion: 'v1', kind: 'Node', metadata, spec: { podCIDRs: [podCIDR] } });
  const patch = { status: { addresses: [{ type: 'InternalIP', address: ip }] } };
  const ref = { apiVersion: 'v1', kind: 'Node', name };
  api.objects.patch(ref, 'merge', patch, { subresource: 'status' });
}
process.stdout.write('ready\n');
// Each line is a number of a node and a number of a change of its MAC address.
for await (const line of createInterface({ input: process.stdin })) {
  const [n = 0, change = 0] = line.split(' ').map(Number);
  const { name, ip } = peerOf(n);
  const patch = { metadata: { annotations: nodeAnnotations(ip, peerOf(n, change).mac) } };
  api.objects.patch({ apiVersion: 'v1', kind: 'Node', name }, 'merge', patch);
  process.stdout.write('changed\n');
}

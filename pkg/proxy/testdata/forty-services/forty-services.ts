/** The 40 Services as records, and the text that `iptables-save` should show for them. */
import { readFileSync } from 'node:fs';
import type { Family } from '#pkg/ip/address.ts';
import { createIntern, projectEndpointSlice, projectService } from '#pkg/kube/project.ts';
import type { Cluster } from '#pkg/proxy/testdata/records.ts';
import { cluster } from './make-cluster.mjs';

const intern = createIntern();

export const fortyServices: Required<Cluster> = {
  services: cluster.services
    .map((raw) => projectService(raw, intern))
    .filter((record) => record !== undefined),
  slices: cluster.slices
    .map((raw) => projectEndpointSlice(raw, intern))
    .filter((record) => record !== undefined),
  zone: 'z1',
};

/** Without the header that says where the text comes from. */
export function fortyServicesText(family: Family): string {
  const text = readFileSync(`${import.meta.dirname}/${family}.txt`, 'utf8');
  return text.replaceAll(/^#.*\n/gm, '');
}

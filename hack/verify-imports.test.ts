import { describe, expect, it } from 'vitest';
import { importProblems, importsOf } from './verify-imports.ts';

describe('importProblems() names', () => {
  it.each([
    ['pkg/proxy/topology.ts', `import { readFileSync } from 'node:fs';`],
    ['pkg/overlay/vxlan.ts', `import { applyHostNetwork } from '#pkg/host-network/apply.ts';`],
    ['pkg/overlay/vxlan.ts', `import { observeHostNetwork } from '#pkg/host-network/observe.ts';`],
    ['pkg/proxy/topology.ts', `import { createReconcileLoop } from '#pkg/reconcile/loop.ts';`],
    ['pkg/proxy/topology.ts', `import { createStore } from '#pkg/kube/store.ts';`],
    ['pkg/nftables/plan.ts', `import { runCommand } from '#pkg/exec/run.ts';`],
    ['pkg/nftables/render.ts', `const fs = await import('node:fs');`],
    ['pkg/nftables/apply.ts', `import { planIptables } from '#pkg/iptables/plan.ts';`],
    ['pkg/iptables/apply.ts', `import { servicePorts } from '#pkg/proxy/service-port.ts';`],
    ['pkg/kube/client.ts', `import { main } from '../../cmd/podwire/main.ts';`],
    ['plugins/podwire.ts', `import { main } from '#test/cluster.ts';`],
    ['pkg/proxy/topology.ts', `import {\n  a,\n  b,\n} from 'execa';`],
  ])('%s: %s', (file, text) => {
    expect(importProblems(importsOf(file, text))).toHaveLength(1);
  });
});

describe('importProblems() allows', () => {
  it.each([
    ['pkg/proxy/address-tree.ts', `import { atOnce } from '#pkg/reconcile/parts.ts';`],
    ['pkg/proxy/chain-names.ts', `import { createHash } from 'node:crypto';`],
    ['pkg/proxy/topology.ts', `import type { NodeRecord } from '#pkg/kube/types.ts';`],
    ['pkg/overlay/vxlan.ts', `import type { HostObject } from '#pkg/host-network/object.ts';`],
    ['pkg/host-network/apply.ts', `import { addRoute } from '#pkg/netlink/route.ts';`],
    ['pkg/proxy/topology.test.ts', `import { readFileSync } from 'node:fs';`],
    ['cmd/podwire-node/wire.ts', `import { readFileSync } from 'node:fs';`],
  ])('%s: %s', (file, text) => {
    expect(importProblems(importsOf(file, text))).toEqual([]);
  });
});

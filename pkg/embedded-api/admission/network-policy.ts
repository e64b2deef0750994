/** NetworkPolicies (networking.k8s.io/v1 defaults and validation). */
import * as z from 'zod';
import { containsPrefix, parsePrefix, samePrefix, tryParsePrefix } from '#pkg/ip/prefix.ts';
import { isJsonObject, listAt, type JsonObject } from '#pkg/embedded-api/json.ts';
import type { KindRules } from '#pkg/embedded-api/kind-rules.ts';
import { eachObject, withAbsent } from './defaults.ts';
import { schemaErrors } from './schema-check.ts';
import {
  cidr,
  dnsSubdomain,
  labelSelector,
  objectMeta,
  portNumber,
  portNumberOrName,
  protocol,
} from './schema-parts.ts';

const ipBlock = z
  .looseObject({ cidr, except: z.array(cidr).optional() })
  .superRefine((block, issues) => {
    const whole = tryParsePrefix(block.cidr);
    if (whole === undefined) return;
    for (const [i, text] of (block.except ?? []).entries()) {
      if (tryParsePrefix(text) === undefined) continue;
      const hole = parsePrefix(text);
      if (containsPrefix(whole, hole) && !samePrefix(whole, hole)) continue;
      const message = `must be a strict subset of \`cidr\``;
      issues.addIssue({ code: 'custom', path: ['except', i], message });
    }
  });

const peer = z
  .looseObject({
    podSelector: labelSelector.optional(),
    namespaceSelector: labelSelector.optional(),
    ipBlock: ipBlock.optional(),
  })
  .superRefine((item, issues) => {
    const selects = item.podSelector !== undefined || item.namespaceSelector !== undefined;
    if (item.ipBlock !== undefined && selects) {
      const message = 'may not be specified when both ipBlock and selectors are present';
      issues.addIssue({ code: 'custom', path: ['ipBlock'], message });
    } else if (item.ipBlock === undefined && !selects) {
      issues.addIssue({ code: 'custom', message: 'must specify a peer' });
    }
  });

const port = z
  .looseObject({
    protocol,
    port: portNumberOrName.optional(),
    endPort: portNumber.optional(),
  })
  .superRefine((item, issues) => {
    if (item.endPort === undefined) return;
    const refuse = (message: string): void =>
      issues.addIssue({ code: 'custom', path: ['endPort'], message });
    if (typeof item.port !== 'number') refuse('may not be specified without a numeric `port`');
    else if (item.endPort < item.port) refuse('must be greater than or equal to `port`');
  });

/** `networking.k8s.io/v1.NetworkPolicy`. */
export const networkPolicySchema = z.looseObject({
  metadata: objectMeta.extend({ name: dnsSubdomain }),
  spec: z
    .looseObject({
      podSelector: labelSelector.optional(),
      policyTypes: z.array(z.enum(['Egress', 'Ingress'])).optional(),
      ingress: z
        .array(z.looseObject({ ports: z.array(port).optional(), from: z.array(peer).optional() }))
        .optional(),
      egress: z
        .array(z.looseObject({ ports: z.array(port).optional(), to: z.array(peer).optional() }))
        .optional(),
    })
    .optional(),
});

export const networkPolicyRules: KindRules = {
  withDefaults: (policy) => {
    const spec = isJsonObject(policy['spec']) ? policy['spec'] : {};
    const hasEgress = listAt(spec, 'egress').length > 0;
    const filled = withAbsent(spec, {
      podSelector: {},
      policyTypes: hasEgress ? ['Ingress', 'Egress'] : ['Ingress'],
    });
    return { ...policy, spec: { ...filled, ...rules(spec, 'ingress'), ...rules(spec, 'egress') } };
  },
  validate: (policy) => schemaErrors(networkPolicySchema, policy),
};

function rules(spec: JsonObject, key: string): JsonObject {
  if (spec[key] === undefined) return {};
  const filled = eachObject(listAt(spec, key), (rule) =>
    rule['ports'] === undefined
      ? rule
      : {
          ...rule,
          ports: eachObject(listAt(rule, 'ports'), (item) => withAbsent(item, { protocol: 'TCP' })),
        },
  );
  return { [key]: filled };
}

/** Pieces of the kinds' schemas: names, ports, addresses, metadata (apimachinery validation). */
import * as z from 'zod';
import { tryParseAddress } from '#pkg/ip/address.ts';
import { networkOf, samePrefix, tryParsePrefix } from '#pkg/ip/prefix.ts';

const dnsLabelText = /^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?$/;
const dnsSubdomainText = /^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*$/;
const qualifiedNameText =
  /^(?:(?<prefix>[^/]*)\/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/;
const labelValueText = /^(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$/;

/** RFC 1123 label: names of Namespaces and of ports. */
export const dnsLabel = z
  .string()
  .max(63, 'must be no more than 63 characters')
  .regex(
    dnsLabelText,
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
  );

/** RFC 1035 label: names of Services. */
export const dns1035Label = z
  .string()
  .max(63, 'must be no more than 63 characters')
  .regex(
    /^[a-z](?:[-a-z0-9]*[a-z0-9])?$/,
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
  );

/** RFC 1123 subdomain: names of most kinds. */
export const dnsSubdomain = z
  .string()
  .max(253, 'must be no more than 253 characters')
  .regex(
    dnsSubdomainText,
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
  );

/** IANA service name, as `targetPort` may be. */
export const portName = z
  .string()
  .max(15, 'must be no more than 15 characters')
  .regex(
    /^(?=.*[a-z])(?!.*--)[a-z0-9](?:[-a-z0-9]*[a-z0-9])?$/,
    'must contain only alpha-numeric characters (a-z, 0-9), hyphens (-), and at least one letter (a-z); it must not start or end with a hyphen or hold two in a row',
  );

const portRange = 'must be between 1 and 65535, inclusive';
export const portNumber = z.int(portRange).min(1, portRange).max(65535, portRange);
export const portNumberOrName = z.union([portNumber, portName]);
export const protocol = z.enum(['SCTP', 'TCP', 'UDP']);

export const ipAddress = z
  .string()
  .refine(
    (text) => tryParseAddress(text) !== undefined,
    'must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)',
  );

export const cidr = z
  .string()
  .refine(
    (text) => tryParsePrefix(text) !== undefined,
    'must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)',
  );

/** A CIDR without host bits: a network, not an interface's address. */
export const networkCidr = cidr.refine((text) => {
  const prefix = tryParsePrefix(text);
  return prefix === undefined || samePrefix(prefix, networkOf(prefix));
}, 'must not have bits set beyond the prefix length');

export const labelKey = z.string().refine((text) => {
  const prefix = qualifiedNameText.exec(text)?.groups?.['prefix'];
  return qualifiedNameText.test(text) && (prefix === undefined || dnsSubdomainText.test(prefix));
}, "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc'), with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')");

export const labelValue = z
  .string()
  .regex(
    labelValueText,
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', at most 63 characters)",
  );

/** Label key to value: `metadata.labels` and equality selectors. */
export const labelMap = z.record(z.string(), labelValue).superRefine((labels, issues) => {
  for (const key of Object.keys(labels)) {
    const checked = labelKey.safeParse(key);
    if (!checked.success) {
      const message = checked.error.issues[0]?.message ?? 'is no label key';
      issues.addIssue({ code: 'custom', message: `${JSON.stringify(key)}: ${message}` });
    }
  }
});

const operator = z.enum(['In', 'NotIn', 'Exists', 'DoesNotExist']);

/** `metav1.LabelSelector`. */
export const labelSelector = z.looseObject({
  matchLabels: labelMap.optional(),
  matchExpressions: z
    .array(
      z
        .looseObject({ key: labelKey, operator, values: z.array(labelValue).optional() })
        .superRefine((item, issues) => {
          const needsValues = item.operator === 'In' || item.operator === 'NotIn';
          const count = item.values?.length ?? 0;
          if (needsValues && count === 0) {
            issues.addIssue({
              code: 'custom',
              path: ['values'],
              message: "must be specified when `operator` is 'In' or 'NotIn'",
            });
          }
          if (!needsValues && count > 0) {
            issues.addIssue({
              code: 'custom',
              path: ['values'],
              message: "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            });
          }
        }),
    )
    .optional(),
});

/** `metadata` of every kind, without the name, whose form depends on the kind. */
export const objectMeta = z.looseObject({
  name: z.string(),
  namespace: dnsLabel.optional(),
  labels: labelMap.optional(),
  annotations: z.record(z.string(), z.string()).optional(),
  finalizers: z.array(z.string()).optional(),
  ownerReferences: z
    .array(
      z.looseObject({
        apiVersion: z.string().min(1),
        kind: z.string().min(1),
        name: z.string().min(1),
        uid: z.string().min(1),
      }),
    )
    .optional(),
});

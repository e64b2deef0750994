/** GC in parts, as much of it as can be done. */
import { readValidAttachments } from '#pkg/cni/config.ts';
import type { CniRequest } from '#pkg/cni/plugin.ts';

/**
 * Does all parts, each whatever became of the others: after an error GC goes on and removes as much
 * as it can (CNI spec 1.1.0, section 2, "GC").
 *
 * @throws {CniError} code 7 before anything is done, without a list of attachments to keep; then what
 *   one of the parts threw, or an AggregateError of several
 */
export function collectAll({ config }: CniRequest, parts: readonly (() => void)[]): void {
  readValidAttachments(config);
  const errors: unknown[] = [];
  for (const collect of parts) {
    try {
      collect();
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length === 1) throw errors[0];
  if (errors.length > 1) {
    throw new AggregateError(errors, `Cannot collect garbage of network ${config.name}`);
  }
}

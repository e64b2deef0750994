/** What the log says of a round's changes. */
import { describeStep, type Step } from '#pkg/host-network/step.ts';

/** The start of the list is enough for a person; thousands are a cold start. */
const maxDescribed = 10;

/** How many of each, and the first of them in words. */
export function summaryOf(steps: readonly Step[]): object {
  const put = steps.filter(({ op }) => op === 'put').length;
  const first = steps.slice(0, maxDescribed).map(describeStep);
  return { put, deleted: steps.length - put, first };
}

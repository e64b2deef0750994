/**
 * The numbers of a token bucket, exactly as the reference plugin computes them: it and `tc` must see
 * what they expect, and CHECK of one must accept what the other set.
 */
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { TokenBucket } from '#pkg/netlink/qdisc.ts';

/** Of one direction: both numbers are above zero, or the direction is not limited. */
export interface RateLimit {
  readonly rateBitsPerSecond: number;
  readonly burstBits: number;
}

/**
 * The bucket for a limit.
 *
 * Bursts that runtimes send for "no limit" (containerd 2^32−1 bits, CRI-O 2^35−9) are too long for
 * the kernel's 32 bits at most rates. The reference lets the number wrap around, and so do we, lest
 * its CHECK fails; only where what remains could not hold one frame, and the pod would be cut off,
 * the bucket is as large as can be, and one frame may wait.
 *
 * @param ticksPerMicrosecond see {@link parseTicks}
 */
export function tokenBucketFor(limit: RateLimit, ticksPerMicrosecond: number): TokenBucket {
  const rateBytesPerSecond = Math.floor(limit.rateBitsPerSecond / 8);
  const burstBytes = Math.floor(limit.burstBits / 8);
  const wrapped = wrappedTicks(burstBytes, { rateBytesPerSecond, ticksPerMicrosecond });
  const smallest = Math.min(burstBytes, largestFrameBytes);
  const needed = (smallest / rateBytesPerSecond) * 1e6 * ticksPerMicrosecond;
  return {
    rateBytesPerSecond,
    // A truncated microsecond is no wrap-around.
    bufferTicks: wrapped >= needed - ticksPerMicrosecond - 1 ? wrapped : u32 - 1,
    limitBytes: Math.max(wrappedLimit(burstBytes, rateBytesPerSecond), smallest),
  };
}

/** Whether a bucket in the kernel is one that either plugin made for the limit. */
export function isBucketFor(
  bucket: TokenBucket,
  limit: RateLimit,
  ticksPerMicrosecond: number,
): boolean {
  const want = tokenBucketFor(limit, ticksPerMicrosecond);
  const { rateBytesPerSecond } = want;
  const burstBytes = Math.floor(limit.burstBits / 8);
  const theirs = wrappedTicks(burstBytes, { rateBytesPerSecond, ticksPerMicrosecond });
  return (
    bucket.rateBytesPerSecond === rateBytesPerSecond &&
    (bucket.limitBytes === want.limitBytes ||
      bucket.limitBytes === wrappedLimit(burstBytes, rateBytesPerSecond)) &&
    (bucket.bufferTicks === want.bufferTicks || bucket.bufferTicks === theirs)
  );
}

/**
 * The scheduler's ticks in a microsecond, from /proc/net/psched: numerator and denominator of
 * nanoseconds per tick, and ticks per second of its clock, in hex.
 *
 * @throws {AgentError} when the text is something else
 */
export function parseTicks(text: string): number {
  const [numerator, denominator, clock] = text
    .trim()
    .split(' ')
    .map((word) => Number.parseInt(word, 16));
  const ticks = ((numerator ?? 0) / (denominator ?? 0)) * ((clock ?? 0) / 1e6);
  if (Number.isFinite(ticks) && ticks > 0) return ticks;
  throw new AgentError('PschedInvalid', `Cannot read /proc/net/psched: ${JSON.stringify(text)}`);
}

/** How long a frame may wait for tokens before it is dropped, beyond a whole burst. */
const latencySeconds = 0.025;

/** What one frame may hold before it is segmented (include/linux/netdevice.h, GSO_LEGACY_MAX_SIZE). */
const largestFrameBytes = 65_536;

const u32 = 2 ** 32;

/** Time to send a burst, in ticks; both steps keep only 32 bits, as the reference's do. */
function wrappedTicks(
  burstBytes: number,
  at: { readonly rateBytesPerSecond: number; readonly ticksPerMicrosecond: number },
): number {
  const microseconds = wrap32((burstBytes * 1e6) / at.rateBytesPerSecond);
  return wrap32(microseconds * at.ticksPerMicrosecond);
}

/** A burst, and what comes in the time a frame may wait, in bytes. */
function wrappedLimit(burstBytes: number, rateBytesPerSecond: number): number {
  return wrap32(wrap32(rateBytesPerSecond * latencySeconds) + burstBytes);
}

function wrap32(value: number): number {
  return Math.trunc(value) % u32;
}

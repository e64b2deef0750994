/** What bgpd's JSON says of how sessions and announcements are going. */
import { AgentError } from '#pkg/errors/agent-error.ts';

type Json = Readonly<Record<string, unknown>>;

/**
 * Neighbours with the state of each (RFC 4271, 8.2.2), from `show bgp summary json`.
 *
 * @throws {AgentError} FrrUnreadable
 */
export function sessionStates(text: string): ReadonlyMap<string, string> {
  const states = new Map<string, string>();
  for (const family of Object.values(parseJson(text))) {
    for (const [address, peer] of Object.entries(objectOf(objectOf(family)['peers']))) {
      const { state } = objectOf(peer);
      if (typeof state === 'string') states.set(address, state);
    }
  }
  return states;
}

/**
 * Why a session is not up, in FRR's words, from `show bgp neighbors ADDRESS json`; '' where it does
 * not say.
 *
 * @throws {AgentError} FrrUnreadable
 */
export function sessionReason(text: string, address: string): string {
  const peer = objectOf(parseJson(text)[address]);
  // Of a session that ended by a message there is more than that.
  const { lastNotificationReason: notified, lastResetDueTo: reset } = peer;
  const said = [notified, reset].filter((reason) => typeof reason === 'string' && reason !== '');
  return typeof said[0] === 'string' ? said[0] : '';
}

/**
 * Whether a route is announced or would be, from `show bgp ipv4 unicast PREFIX json`.
 *
 * @throws {AgentError} FrrUnreadable
 */
export function isAnnounced(text: string): boolean {
  const { paths } = parseJson(text);
  return (
    Array.isArray(paths) &&
    paths.some((path) => {
      const { local, valid } = objectOf(path);
      return local === true && valid === true;
    })
  );
}

function parseJson(text: string): Json {
  try {
    return objectOf(JSON.parse(text));
  } catch (cause) {
    const start = JSON.stringify(text.slice(0, 80));
    throw new AgentError(
      'FrrUnreadable',
      `Cannot read what FRR says: expected JSON, got ${start}`,
      {
        cause,
      },
    );
  }
}

function objectOf(value: unknown): Json {
  return typeof value === 'object' && value !== null ? (value as Json) : {};
}

/**
 * From what bgpd is configured to do to what it should, in commands as typed after `configure
 * terminal`. The BGP instance may be somebody else's, whose lines are left as they are.
 */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { families } from '#pkg/ip/address.ts';
import { frrBlocks, isOfRouter, type FrrConfig, type FrrLine, type FrrSpeaker } from './config.ts';

export interface FrrPlan {
  readonly commands: readonly string[];
  /** What is left out, or will not work as it should, because of other people's lines. */
  readonly problems: readonly string[];
}

/**
 * The commands that are missing; none when `have` is right.
 *
 * @param want undefined = nothing of ours
 * @throws {AgentError} FrrOtherAs when FRR speaks for somebody else in another AS
 */
export function planFrr(want: FrrSpeaker | undefined, have: FrrConfig): FrrPlan {
  const ours = ownLines(have);
  const isOwn = isOwnInstance(have, ours);
  if (want !== undefined && have.router !== undefined && !isOwn) {
    if (have.router.asNumber !== want.asNumber) {
      throw new AgentError(
        'FrrOtherAs',
        `Cannot announce pods: FRR is "${have.router.header}" for others too, and bgp.asNumber is ${want.asNumber}`,
      );
    }
  }
  const staysRouter = want === undefined ? !isOwn : have.router?.asNumber === want.asNumber;
  // Of a former AS, or the last of ours: it goes as a whole.
  const goesRouter = have.router !== undefined && !staysRouter;
  const kept: FrrConfig = goesRouter ? withoutRouter(have) : have;
  const problems: string[] = [];
  const wanted = want === undefined ? [] : wantedLines(want, kept, { isOwn, problems });
  const needed = new Set(wanted.map(keyOf));
  const stale = ours.filter(
    (line) => !needed.has(keyOf(line)) && !(goesRouter && isOfRouter(line)),
  );
  // With a neighbour that leaves its group all of it goes.
  const leaving = new Set(stale.flatMap((line) => memberOf(line) ?? []));
  const present = new Set(
    kept.lines.filter(({ text }) => !leaving.has(neighborOf(text) ?? '')).map(keyOf),
  );
  const missing = wanted.filter((line) => !present.has(keyOf(line)));
  const header =
    want !== undefined && kept.router === undefined
      ? `router bgp ${want.asNumber}`
      : kept.router?.header;
  const commands = [
    ...(have.router !== undefined && goesRouter ? instanceRemoval(have, have.router) : []),
    // Before what is missing: a stale line may hold its place, a sequence number or a setting.
    ...typed(removals(stale), header),
    ...typed(missing, header),
  ];
  return { commands, problems };
}

/**
 * Neighbours first: those of an instance that just goes keep its routes for two minutes, as if it were
 * about to be back (RFC 8538, Notification without Hard Reset).
 */
function instanceRemoval(have: FrrConfig, router: NonNullable<FrrConfig['router']>): string[] {
  const members = [...membersOf(have)].map((address) => ({
    block: frrBlocks.router,
    text: `no neighbor ${address}`,
  }));
  return [...typed(members, router.header), `no router bgp ${router.asNumber}`];
}

/** Lines of an instance that is there for us alone. */
const instanceLines = ['bgp graceful-restart preserve-fw-state', 'no bgp network import-check'];

function wantedLines(
  want: FrrSpeaker,
  have: FrrConfig,
  { isOwn, problems }: { readonly isOwn: boolean; readonly problems: string[] },
): FrrLine[] {
  const lines: FrrLine[] = [...want.filters];
  const inRouter = (text: string): void => void lines.push({ block: frrBlocks.router, text });
  const has = (block: string, text: string): boolean =>
    have.lines.some((line) => line.block === block && line.text === text);
  if (have.router === undefined || isOwn) {
    const text = have.router?.header ?? `router bgp ${want.asNumber}`;
    lines.push({ block: '', text });
    inRouter(`bgp router-id ${want.routerId}`);
    for (const line of instanceLines) inRouter(line);
  } else if (!has(frrBlocks.router, 'bgp graceful-restart preserve-fw-state')) {
    problems.push(
      `When FRR is started again peers lose their way to our pods: its "${have.router.header}" lacks "bgp graceful-restart preserve-fw-state"`,
    );
  }
  for (const { name, settings } of want.groups) {
    inRouter(`neighbor ${name} peer-group`);
    for (const setting of settings) inRouter(`neighbor ${name} ${setting}`);
  }
  for (const family of families) {
    const block = frrBlocks[family];
    for (const { prefix, routeMap, ...network } of want.networks) {
      if (network.family !== family) continue;
      // Somebody else's statement for it does as well.
      const theirs = have.lines.some(
        (line) =>
          line.block === block &&
          `${line.text} `.startsWith(`network ${prefix} `) &&
          !isOurNetwork(line.text),
      );
      if (!theirs) lines.push({ block, text: `network ${prefix} route-map ${routeMap}` });
    }
    // FRR tells only what is not as by default.
    const byDefault =
      family === 'ip'
        ? !has(frrBlocks.router, 'no bgp default ipv4-unicast')
        : has(frrBlocks.router, 'bgp default ipv6-unicast');
    for (const group of want.groups) {
      const isActive = group.family === family;
      if (isActive !== byDefault) {
        lines.push({ block, text: `${isActive ? '' : 'no '}neighbor ${group.name} activate` });
      }
      if (!isActive) continue;
      for (const setting of group.familySettings) {
        lines.push({ block, text: `neighbor ${group.name} ${setting}` });
      }
    }
  }
  const members = membersOf(have);
  const foreign = new Set(
    have.lines.flatMap(({ block, text }) => {
      const address = block === frrBlocks.router ? neighborOf(text) : undefined;
      return address === undefined || members.has(address) ? [] : [address];
    }),
  );
  for (const { address, group } of want.neighbors) {
    if (foreign.has(address)) {
      problems.push(
        `Cannot speak BGP with ${address}: FRR has a neighbor of this address that is not ours`,
      );
      continue;
    }
    inRouter(`neighbor ${address} peer-group ${group}`);
    // At once, before there is a session: it counts from the next one on. FRR takes it from no group.
    inRouter(`neighbor ${address} graceful-restart`);
  }
  return lines;
}

/** The lines that make nothing else of these go, the ones that stand for others in place of those. */
function removals(stale: readonly FrrLine[]): FrrLine[] {
  const keys = new Set(stale.map(keyOf));
  const gone = new Set<string>();
  const members: FrrLine[] = [];
  for (const line of stale) {
    const address = memberOf(line);
    if (address === undefined) continue;
    members.push({ block: line.block, text: `no neighbor ${address}` });
    gone.add(address);
  }
  const groups: FrrLine[] = [];
  for (const { block, text } of stale) {
    const [, name] = /^neighbor (PODWIRE-\S+) peer-group$/.exec(text) ?? [];
    if (block !== frrBlocks.router || name === undefined) continue;
    groups.push({ block, text: `no ${text}` });
    gone.add(name);
  }
  const rest = stale.filter(({ block, text }) => {
    if (keys.has(keyOf({ block: '', text: block }))) return false;
    const name = neighborOf(text);
    return name === undefined || !gone.has(name);
  });
  const negated = rest.map(({ block, text }) => ({
    block,
    text: text.startsWith('no ') ? text.slice(3) : `no ${text}`,
  }));
  const top = negated.filter(({ block }) => block === '');
  return [
    ...members,
    ...negated.filter(({ block }) => block !== ''),
    ...groups,
    // Maps before the lists that they name.
    ...top.filter(({ text }) => text.startsWith('no route-map ')),
    ...top.filter(({ text }) => !text.startsWith('no route-map ')),
  ];
}

/** As they are typed: each block entered and left. */
function typed(lines: readonly FrrLine[], header: string | undefined): string[] {
  const commands: string[] = [];
  const entered: string[] = [];
  for (const { block, text } of lines) {
    const into = wayInto(block, header);
    let shared = 0;
    while (shared < into.length && entered[shared] === into[shared]) shared++;
    for (; entered.length > shared; entered.pop()) commands.push('exit');
    for (const step of into.slice(shared)) {
      commands.push(step);
      entered.push(step);
    }
    commands.push(text);
    if (/^(?:route-map|router) /.test(text)) entered.push(text);
  }
  return [...commands, ...entered.map(() => 'exit')];
}

function wayInto(block: string, header = ''): readonly string[] {
  switch (block) {
    case '':
      return [];
    case frrBlocks.router:
      return [header];
    case frrBlocks.ip:
      return [header, 'address-family ipv4 unicast'];
    case frrBlocks.ip6:
      return [header, 'address-family ipv6 unicast'];
    default:
      return [block];
  }
}

/** All that carries our names, and the membership of neighbours in our groups. */
function ownLines(have: FrrConfig): FrrLine[] {
  const members = membersOf(have);
  return have.lines.filter(({ block, text }) => {
    if (block === '') return /^(?:route-map|ip(?:v6)? prefix-list) PODWIRE-/.test(text);
    if (block.startsWith('route-map PODWIRE-')) return true;
    if (!isOfRouter({ block, text })) return false;
    if (isOurNetwork(text) || membership.test(text)) return true;
    const name = neighborOf(text) ?? '';
    // What somebody added for a neighbour of ours, a description say, stays.
    if (members.has(name)) return text === `neighbor ${name} graceful-restart`;
    return name.startsWith('PODWIRE-');
  });
}

/** Whether the instance has nothing but what we write into one that was not there. */
function isOwnInstance({ lines }: FrrConfig, ours: readonly FrrLine[]): boolean {
  const own = new Set(ours.map(keyOf));
  const rest = lines.filter((line) => isOfRouter(line) && !own.has(keyOf(line)));
  const others = rest.filter(({ text }) => !text.startsWith('bgp router-id '));
  return (
    others.length === instanceLines.length &&
    others.every(({ text }) => instanceLines.includes(text))
  );
}

function withoutRouter({ lines }: FrrConfig): FrrConfig {
  return { lines: lines.filter((line) => !isOfRouter(line)), router: undefined };
}

const membership = /^neighbor (\S+) peer-group PODWIRE-\S+$/;

/** The neighbour that this line puts into a group of ours. */
function memberOf({ block, text }: FrrLine): string | undefined {
  return block === frrBlocks.router ? membership.exec(text)?.[1] : undefined;
}

function membersOf({ lines }: FrrConfig): ReadonlySet<string> {
  return new Set(lines.flatMap((line) => memberOf(line) ?? []));
}

function neighborOf(text: string): string | undefined {
  return /^(?:no )?neighbor (\S+) /.exec(text)?.[1];
}

function isOurNetwork(text: string): boolean {
  return /^network \S+ route-map PODWIRE-/.test(text);
}

function keyOf({ block, text }: FrrLine): string {
  return `${block}\n${text}`;
}

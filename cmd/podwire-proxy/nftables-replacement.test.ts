import { expect, it } from 'vitest';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { portKey } from '#pkg/proxy/proxied-port.ts';
import { portsOf, service, slice } from '#pkg/proxy/testdata/records.ts';
import { refusedPorts } from './nftables-replacement.ts';
import { nftablesTestOptions } from './scratch/nftables-inputs.ts';

const refusal = new AgentError('CommandFailed', 'the whole');
const options = nftablesTestOptions();
const numbers = Array.from({ length: 100 }, (_, i) => i + 1);
const ports = portsOf(
  {
    services: numbers.map((n) => service(`ns/s${n}`, { clusterIPs: [`172.30.0.${n}`] })),
    slices: numbers.map((n) => slice(`ns/s${n}`, [`10.1.0.${n}`])),
  },
  'ip',
);
const key = (n: number): string => `ns/s${n}:p80/tcp`;

/** nft that refuses scripts with one of these endpoints. */
function nft(...endpoints: readonly string[]) {
  const scripts: string[] = [];
  const check = async (script: string): Promise<void> => {
    scripts.push(script);
    const found = endpoints.find((endpoint) => script.includes(`: ${endpoint} . `));
    if (found !== undefined) throw new AgentError('CommandFailed', `not ${found}`);
  };
  return { scripts, check };
}

it('finds the ports by parts of the table, each with what was said of it alone', async () => {
  const { check, scripts } = nft('10.1.0.7', '10.1.0.64');
  const guilty = await refusedPorts(refusal, { options, ports }, check);
  const said = [...guilty].map(([name, error]) => `${name} ${(error as Error).message}`);
  expect(said.toSorted()).toEqual([`${key(64)} not 10.1.0.64`, `${key(7)} not 10.1.0.7`]);
  // Not the whole again, which takes longest.
  expect(
    scripts.every((script) => !numbers.every((n) => script.includes(`: 10.1.0.${n} . `))),
  ).toBe(true);
  expect(scripts.length).toBeLessThan(35);
});

it('looks no further when a table without ports is refused', async () => {
  let checks = 0;
  const check = async (): Promise<void> => {
    checks += 1;
    throw new AgentError('CommandFailed', 'no such family');
  };
  await expect(refusedPorts(refusal, { options, ports }, check)).rejects.toBe(refusal);
  expect(checks).toBe(1);
});

it('blames nobody when every part is taken, or more than a few are refused', async () => {
  const taken = refusedPorts(refusal, { options, ports }, async () => undefined);
  await expect(taken).rejects.toBe(refusal);
  const { check } = nft(...numbers.slice(0, 40).map((n) => `10.1.0.${n}`));
  await expect(refusedPorts(refusal, { options, ports }, check)).rejects.toThrow('not 10.1.0.');
});

it('lets through what is no refusal', async () => {
  const gone = new AgentError('CommandMissing', 'no nft');
  let checks = 0;
  const check = async (): Promise<void> => {
    checks += 1;
    if (checks === 2) throw gone;
  };
  await expect(refusedPorts(refusal, { options, ports }, check)).rejects.toBe(gone);
});

it('one port alone is to blame for itself', async () => {
  const [[name, port] = []] = ports;
  if (name === undefined || port === undefined) throw new Error('no port');
  const one = new Map([[portKey(port), port]]);
  const guilty = await refusedPorts(refusal, { options, ports: one }, async () => undefined);
  expect([...guilty]).toEqual([[name, refusal]]);
});

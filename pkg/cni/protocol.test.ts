import { describe, expect, it } from 'vitest';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { CniError } from './cni-error.ts';
import type { CniPlugin, CniRequest } from './plugin.ts';
import { answerCni, type CniAnswer } from './protocol.ts';
import { emptyDns } from './result.ts';

const addEnvironment = {
  CNI_COMMAND: 'ADD',
  CNI_CONTAINERID: 'pod-1',
  CNI_NETNS: '/var/run/netns/pod-1',
  CNI_IFNAME: 'eth0',
  CNI_PATH: '/opt/cni/bin',
};
const config = { cniVersion: '1.1.0', name: 'net', type: 'test' };

interface Call {
  readonly env?: Readonly<Record<string, string>>;
  readonly stdin?: unknown;
  readonly plugin?: Partial<CniPlugin>;
  readonly ownNetns?: string;
}

/** Answers a call of a plugin that writes down what it was asked. */
function answer(call: Call): CniAnswer & { readonly calls: string[]; readonly json: unknown } {
  const calls: string[] = [];
  const note =
    (name: string) =>
    (request: CniRequest): void => {
      calls.push(`${name} ${request.containerId} ${request.ifName} ${request.netns ?? '-'}`);
    };
  const plugin: CniPlugin = {
    about: 'Test plugin',
    add: (request) => {
      note('ADD')(request);
      const address = parsePrefix('10.1.2.3/24');
      return { interfaces: [], ips: [{ address }], routes: [], dns: emptyDns };
    },
    del: note('DEL'),
    check: note('CHECK'),
    gc: note('GC'),
    status: note('STATUS'),
    ...call.plugin,
  };
  const { stdin = config } = call;
  const result = answerCni(plugin, {
    environment: call.env ?? addEnvironment,
    readStdin: () => {
      if (stdin instanceof Error) throw stdin;
      return typeof stdin === 'string' ? stdin : JSON.stringify(stdin);
    },
    isOwnNetns: (path) => path === call.ownNetns,
  });
  const json: unknown = result.stdout === '' ? undefined : JSON.parse(result.stdout);
  return { ...result, calls, json };
}

describe('a call without CNI_COMMAND', () => {
  it('4. prints what the program is and its versions on standard error, and succeeds', () => {
    const { exitCode, stdout, stderr } = answer({ env: {} });
    expect({ exitCode, stdout }).toEqual({ exitCode: 0, stdout: '' });
    expect(stderr).toContain('Test plugin\n');
    expect(stderr).toContain(
      'CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0',
    );
  });
});

describe('VERSION', () => {
  it('3. answers without reading standard input', () => {
    const stdin = new Error('must not be read');
    expect(answer({ env: { CNI_COMMAND: 'VERSION' }, stdin }).json).toEqual({
      cniVersion: '1.1.0',
      supportedVersions: ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'],
    });
  });
});

describe('parameters', () => {
  it.each([
    ['all missing at once', { CNI_COMMAND: 'ADD', CNI_CONTAINERID: 'x' }, '[CNI_NETNS,CNI_IFNAME]'],
    ['an unknown command', { ...addEnvironment, CNI_COMMAND: 'FOO' }, 'unknown CNI_COMMAND: FOO'],
    [
      'a container ID',
      { ...addEnvironment, CNI_CONTAINERID: 'b@d/id' },
      'CNI_CONTAINERID "b@d/id"',
    ],
    ['ADD without netns', { ...addEnvironment, CNI_NETNS: '' }, '[CNI_NETNS]'],
    ['interface .', { ...addEnvironment, CNI_IFNAME: '.' }, 'CNI_IFNAME "." is . or ..'],
    ['interface ..', { ...addEnvironment, CNI_IFNAME: '..' }, 'CNI_IFNAME ".." is . or ..'],
    ['interface /', { ...addEnvironment, CNI_IFNAME: 'eth/0' }, 'contains / or : or a blank'],
    ['interface :', { ...addEnvironment, CNI_IFNAME: 'eth:0' }, 'contains / or : or a blank'],
    ['interface blank', { ...addEnvironment, CNI_IFNAME: 'a b' }, 'contains / or : or a blank'],
    ['16 bytes', { ...addEnvironment, CNI_IFNAME: 'e123456789012345' }, 'longer than 15 bytes'],
  ])('1. 2. 5. 6. 7. refuses %s with code 4', (_, env, text) => {
    const { exitCode, json, stderr, calls } = answer({ env });
    expect(json).toMatchObject({ cniVersion: '1.1.0', code: 4 });
    expect((json as { msg: string }).msg).toContain(text);
    expect({ exitCode, stderr, calls }).toEqual({ exitCode: 1, stderr: '', calls: [] });
  });

  it('2. lets DEL run without a namespace', () => {
    const { exitCode, calls } = answer({
      env: { ...addEnvironment, CNI_COMMAND: 'DEL', CNI_NETNS: '' },
    });
    expect({ exitCode, calls }).toEqual({ exitCode: 0, calls: ['DEL pod-1 eth0 -'] });
  });
});

describe('the configuration', () => {
  it.each([
    ['cannot be read', new Error('EIO'), 5],
    ['is no JSON', '{', 6],
    ['is no object', '[]', 6],
    ['has no name', { cniVersion: '1.0.0' }, 7],
    ['has a bad name', { cniVersion: '1.0.0', name: 'a b' }, 7],
    ['has a bad name and version: the name comes first', { cniVersion: '9.9.9', name: '' }, 7],
    ['has a name of the wrong type', { cniVersion: '1.0.0', name: 3 }, 7],
    ['has an unknown version', { cniVersion: '9.9.9', name: 'net' }, 1],
  ])('8. 9. 10. %s: code', (_, stdin, code) => {
    const { exitCode, json, calls } = answer({ stdin });
    expect(json).toMatchObject({ code });
    expect({ exitCode, calls }).toEqual({ exitCode: 1, calls: [] });
  });

  it('10. names the versions we speak when it has another', () => {
    expect(answer({ stdin: { ...config, cniVersion: '9.9.9' } }).json).toMatchObject({
      msg: 'incompatible CNI versions',
      details:
        'config is "9.9.9", plugin supports ["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]',
    });
  });

  // libcni writes "" for a list that does not say.
  it.each([{}, { cniVersion: '' }])(
    '11. is of version 0.1.0 when it does not say: %j',
    (version) => {
      expect(answer({ stdin: { name: 'net', ...version } }).json).toEqual({
        cniVersion: '0.1.0',
        ip4: { ip: '10.1.2.3/24' },
        dns: {},
      });
    },
  );
});

describe('commands newer than the configuration', () => {
  it.each([
    ['CHECK', '0.3.1', 1],
    ['CHECK', '0.4.0', 0],
    ['GC', '1.0.0', 1],
    ['GC', '1.1.0', 0],
    ['STATUS', '1.0.0', 1],
    ['STATUS', '1.1.0', 0],
  ])('12. 13. %s with %s exits %i', (command, cniVersion, exitCode) => {
    const result = answer({
      env: { ...addEnvironment, CNI_COMMAND: command },
      stdin: { ...config, cniVersion },
    });
    expect(result.exitCode).toBe(exitCode);
    if (exitCode === 0) expect(result).toMatchObject({ stdout: '', stderr: '' });
    else expect(result.json).toMatchObject({ code: 1, cniVersion });
    expect(result.calls).toHaveLength(1 - exitCode);
  });
});

describe('errors of the plugin', () => {
  it.each([
    [
      'keep their number',
      new CniError(101, 'no luck', { hint: 'try harder' }),
      { cniVersion: '1.1.0', code: 101, msg: 'no luck', details: 'try harder' },
    ],
    [
      'have 999 without one, and all their causes',
      new AgentError('EPERM', 'Cannot add link', { cause: new Error('not root') }),
      { cniVersion: '1.1.0', code: 999, msg: 'Cannot add link: not root' },
    ],
  ])('14. 44. %s', (_, error, document) => {
    const add = (): never => {
      throw error;
    };
    const { exitCode, json } = answer({ plugin: { add } });
    expect(json).toEqual(document);
    expect(exitCode).toBe(1);
  });
});

describe("the plugin's own namespace as CNI_NETNS", () => {
  const ownNetns = addEnvironment.CNI_NETNS;
  it.each(['ADD', 'CHECK', 'DEL'])('15. is refused with code 8 before %s runs', (command) => {
    const { json, calls } = answer({ env: { ...addEnvironment, CNI_COMMAND: command }, ownNetns });
    expect(json).toMatchObject({ code: 8 });
    expect(calls).toEqual([]);
  });

  it.each(['1', 'true', 'TRUE'])('15. is allowed with CNI_NETNS_OVERRIDE=%s', (value) => {
    const env = { ...addEnvironment, CNI_NETNS_OVERRIDE: value };
    expect(answer({ env, ownNetns }).calls).toHaveLength(1);
  });
});

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { messageOf } from '#pkg/errors/agent-error.ts';
import { readOptions } from './options.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'podwire-options-'));
});
afterEach(() => rm(dir, { recursive: true }));

describe('readOptions()', () => {
  test('the flag wins over NODE_NAME', async () => {
    const options = await readOptions(['--node-name', 'a'], { NODE_NAME: 'b' }, '1');
    expect(options).toMatchObject({ nodeName: 'a', kubeconfig: undefined });
    expect(await readOptions([], { NODE_NAME: 'b' }, '1')).toMatchObject({ nodeName: 'b' });
  });

  test('reads the configuration file', async () => {
    const path = join(dir, 'node.yaml');
    await writeFile(path, 'backend: host-gw\n');
    const options = await readOptions(['--config', path], { NODE_NAME: 'a' }, '1');
    expect(options).toMatchObject({ config: { backend: 'host-gw', vni: 1 } });
  });

  test('134. flags may say what the file says otherwise', async () => {
    const path = join(dir, 'node.yaml');
    const netConf = join(dir, 'net-conf.json');
    await writeFile(path, 'annotationPrefix: example.com\nnetConf: /does/not/exist\n');
    await writeFile(netConf, '{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"},"note":"x"}');
    const flags = ['--annotation-prefix=flannel.alpha.coreos.com', '--net-conf', netConf];
    const argv = ['--config', path, ...flags];
    const options = await readOptions(argv, { NODE_NAME: 'a' }, '1');
    expect(options).toMatchObject({
      config: { annotationPrefix: 'flannel.alpha.coreos.com/', backend: 'host-gw', netConf },
      notices: [`${netConf}: nobody reads note`],
    });
    const bare = await readOptions(flags.slice(0, 1), { NODE_NAME: 'a' }, '1');
    expect(bare).toMatchObject({
      config: { annotationPrefix: 'flannel.alpha.coreos.com/' },
      notices: [],
    });
  });

  test.each([
    ['vxlan', 'host-gw', ['Backend']],
    ['vxlan', 'vxlan', ['Backend.note']],
    ['none', 'alloc', ['Backend.note']],
  ])('backend: %s and a Backend of Type %s: nobody reads %j', async (backend, type, ignored) => {
    const path = join(dir, 'node.yaml');
    const netConf = join(dir, 'net-conf.json');
    await writeFile(path, `backend: ${backend}\nnetConf: ${netConf}\n`);
    await writeFile(netConf, JSON.stringify({ Backend: { Type: type, note: 'x' } }));
    const options = await readOptions(['--config', path], { NODE_NAME: 'a' }, '1');
    const notices = [`${netConf}: nobody reads ${ignored.join(', ')}`];
    expect(options).toMatchObject({ config: { backend }, notices });
  });

  test.each([
    [
      ['--node-name', 'a', '--annotation-prefix', 'A B'],
      '--annotation-prefix: expected a DNS name',
    ],
    [['--node-name', 'a', '--net-conf', 'net-conf.json'], '--net-conf: expected an absolute path'],
    [[], 'Cannot tell which Node this is'],
    [['--nodename', 'a'], "unknown option '--nodename'"],
    [['--node-name', 'a', 'b'], 'too many arguments'],
    [['--node-name', 'a', '--config', '/does/not/exist'], '/does/not/exist'],
  ])('refuses %j', async (argv, message) => {
    await expect(readOptions(argv, {}, '1')).rejects.toThrow(message);
  });

  test.each([
    [['--node-nam', 'a'], "unknown option '--node-nam' (Did you mean --node-name?)"],
    [['--config'], "option '--config <file>' argument missing"],
  ])('says once and in one line what is wrong with %j', async (argv, message) => {
    const error: unknown = await readOptions(argv, {}, '1').catch((caught: unknown) => caught);
    expect(messageOf(error)).toBe(`Cannot understand the command line: ${message}`);
  });
});

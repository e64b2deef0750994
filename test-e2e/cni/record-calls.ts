/** Writes down how a container runtime calls a plugin, and lets the plugin answer. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import type { RuntimeNode } from './runtime-node.ts';

export interface RecordedCall {
  readonly env: Readonly<Record<string, string>>;
  /** The configuration; undefined where standard input was empty. */
  readonly config: RecordedConfig | undefined;
  readonly exitCode: number;
}

export interface RecordedConfig {
  readonly cniVersion: string;
  readonly name: string;
  readonly prevResult?: object;
  readonly runtimeConfig?: Readonly<Record<string, unknown>>;
}

/** Puts a recorder before the plugin; the function returns the calls that ended, oldest first. */
export function recordCalls(node: RuntimeNode, type: string): () => readonly RecordedCall[] {
  const folder = join(node.directory, `calls-${type}`);
  const plugin = join(node.binDir, type);
  const real = join(folder, type);
  const log = join(folder, 'log');
  mkdirSync(log, { recursive: true });
  renameSync(plugin, real);
  const script = `#!/bin/sh
call=$(mktemp -d ${log}/$(date +%s%N).XXXXXX)
env -0 > $call/env
cat > $call/stdin
${real} < $call/stdin
code=$?
echo $code > $call/exit
exit $code
`;
  // Under another name first: a runtime must not find half of it.
  writeFileSync(`${plugin}.new`, script);
  chmodSync(`${plugin}.new`, 0o755);
  renameSync(`${plugin}.new`, plugin);
  return () =>
    readdirSync(log)
      .toSorted()
      .map((name) => join(log, name))
      .filter((call) => existsSync(join(call, 'exit')))
      .map(readCall);
}

function readCall(folder: string): RecordedCall {
  const read = (name: string): string => readFileSync(join(folder, name), 'utf8');
  const pairs = read('env')
    .split('\0')
    .filter((line) => line !== '')
    .map((line): [string, string] => {
      const at = line.indexOf('=');
      return [line.slice(0, at), line.slice(at + 1)];
    });
  const stdin = read('stdin');
  return {
    env: Object.fromEntries(pairs),
    config: stdin === '' ? undefined : (JSON.parse(stdin) as RecordedConfig),
    exitCode: Number(read('exit')),
  };
}

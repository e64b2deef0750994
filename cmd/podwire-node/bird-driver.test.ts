import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { birdConfigTitle } from '#pkg/overlay/bird-config.ts';
import { createBirdDriver, type BirdDriver } from './bird-driver.ts';
import { WrittenFiles } from './written-files.ts';

let dir: string;
let server: Server | undefined;
/** What BIRD was asked to do, and whether it answers. */
let heard: string[];
let isBusy: boolean;
let driver: BirdDriver;
let written: WrittenFiles;
const { signal } = new AbortController();
const configFile = (): string => join(dir, 'podwire.conf');
const controlSocket = (): string => join(dir, 'bird.ctl');

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'podwire-bird-'));
  heard = [];
  isBusy = false;
  written = new WrittenFiles();
  const options = { configFile: configFile(), controlSocket: controlSocket() };
  driver = createBirdDriver(options, { now: () => 0, written });
  server = createServer((socket) => {
    socket.write('0001 BIRD 2.0.12 ready.\n');
    socket.on('error', () => undefined);
    socket.once('data', (bytes: Buffer) => {
      const command = bytes.toString().trim();
      heard.push(command);
      if (isBusy) socket.destroy();
      else if (command === 'configure') socket.end('0003 Reconfigured\n');
      else socket.end('1002-podwire_pods4 Static\n0000 \n');
    });
  });
  await new Promise<void>((resolve) => server?.listen(controlSocket(), resolve));
});
afterEach(async () => {
  await stopBird();
  rmSync(dir, { recursive: true });
});

async function stopBird(): Promise<void> {
  const stopping = server;
  server = undefined;
  if (stopping !== undefined) await new Promise((resolve) => stopping.close(resolve));
}

const config = (comment: string): string =>
  `${birdConfigTitle}\n# ${comment}\nprotocol static podwire_pods4 { }\n`;

describe('the BIRD driver', () => {
  test('tells that its file is gone, and that it is back, and nothing of one that is not wanted', async () => {
    await driver.apply(config('one'), signal);
    expect(written.notAsWritten()).toEqual([]);
    rmSync(configFile());
    expect(written.notAsWritten()).toEqual([configFile()]);
    heard = [];
    await driver.apply(config('one'), signal);
    expect(written.notAsWritten()).toEqual([]);
    expect(heard).toContain('configure');
    await driver.apply(undefined, signal);
    rmSync(configFile());
    expect(written.notAsWritten()).toEqual([]);
  });

  test('asks again to read a file, until BIRD has', async () => {
    await driver.apply(config('one'), signal);
    isBusy = true;
    await expect(driver.apply(config('two'), signal)).rejects.toThrow('Cannot ask BIRD');
    isBusy = false;
    heard = [];
    await driver.apply(config('two'), signal);
    expect(heard).toEqual(['configure', 'show protocols "podwire_*"']);
    heard = [];
    await driver.apply(config('two'), signal);
    expect(heard).toEqual([]);
  });

  test('takes an announcement back, however often it takes', async () => {
    writeFileSync(configFile(), config('of a former start'));
    isBusy = true;
    await expect(driver.apply(undefined, signal)).rejects.toThrow('Cannot ask BIRD');
    isBusy = false;
    heard = [];
    await driver.apply(undefined, signal);
    expect(heard).toEqual(['configure']);
    expect(readFileSync(configFile(), 'utf8')).toBe(`${birdConfigTitle}\n`);
    await driver.apply(undefined, signal);
    expect(heard).toEqual(['configure']);
  });

  test('a BIRD that does not run has nothing to take back', async () => {
    writeFileSync(configFile(), config('of a former start'));
    await stopBird();
    await driver.apply(undefined, signal);
    expect(readFileSync(configFile(), 'utf8')).toBe(`${birdConfigTitle}\n`);
  });

  test('leaves the files of others alone', async () => {
    writeFileSync(configFile(), 'protocol device { }\n');
    await driver.apply(undefined, signal);
    expect(readFileSync(configFile(), 'utf8')).toBe('protocol device { }\n');
    expect(heard).toEqual([]);
  });
});

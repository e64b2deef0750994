/**
 * Calls node:fs, and our own in its place, with the same arguments, each in a directory of its own:
 * `bun fs-check.ts DIR`. Prints a line of JSON with what differs: nothing.
 */
import fs from 'node:fs';
import * as own from '#pkg/sys/bun-fs.ts';

type Fs = Pick<
  typeof fs,
  | 'accessSync'
  | 'closeSync'
  | 'existsSync'
  | 'fstatSync'
  | 'ftruncateSync'
  | 'mkdirSync'
  | 'openSync'
  | 'readdirSync'
  | 'readFileSync'
  | 'readlinkSync'
  | 'readSync'
  | 'renameSync'
  | 'rmSync'
  | 'statfsSync'
  | 'statSync'
  | 'symlinkSync'
  | 'unlinkSync'
  | 'writeFileSync'
  | 'writeSync'
>;

const long = 'ä'.repeat(5000);

/** Steps build upon each other; what each returns, or throws, is compared. */
const steps: readonly ((of: Fs, dir: string) => unknown)[] = [
  (of, dir) => of.mkdirSync(`${dir}/a`, { mode: 0o755 }),
  (of, dir) => of.mkdirSync(`${dir}/b`),
  (of, dir) => of.mkdirSync(`${dir}/b`),
  (of, dir) => of.mkdirSync(`${dir}/c`),
  (of, dir) => of.mkdirSync(`${dir}/c/d`),
  (of, dir) => of.mkdirSync(`${dir}/x/y`),
  (of, dir) => of.writeFileSync(`${dir}/file`, `\uFEFF${long}\n`, { mode: 0o600 }),
  (of, dir) => of.readFileSync(`${dir}/file`, 'utf8'),
  (of, dir) => of.writeFileSync(`${dir}/file`, 'short'),
  (of, dir) => of.writeFileSync(`${dir}/file`, 'SH', { flag: 'r+' }),
  (of, dir) => of.readFileSync(`${dir}/file`, 'utf8'),
  (of, dir) => of.writeFileSync(`${dir}/file`, 'again', { flag: 'wx', mode: 0o600 }),
  (of, dir) => of.writeFileSync(`${dir}/none`, '', { flag: 'r+' }),
  (of, dir) => of.writeFileSync(`${dir}/empty`, ''),
  (of, dir) => of.readFileSync(`${dir}/empty`, 'utf8'),
  (of, dir) => of.readFileSync(`${dir}/none`, 'utf8'),
  (of, dir) => of.readFileSync(`${dir}/a`, 'utf8'),
  (of) => of.readFileSync('/proc/sys/kernel/ostype', 'utf8'),
  (of, dir) => of.readFileSync(`${dir}/zero\0byte`, 'utf8'),
  (of, dir) => of.mkdirSync(`${dir}/file/below`),
  (of, dir) => {
    const fd = of.openSync(`${dir}/log`, 'a', 0o644);
    try {
      const written = [of.writeSync(fd, Buffer.from('0123456789'), 4), of.writeSync(fd, 'é')];
      return [...written, of.fstatSync(fd).ino === of.statSync(`${dir}/log`).ino];
    } finally {
      of.closeSync(fd);
    }
  },
  (of, dir) => {
    const fd = of.openSync(`${dir}/log`, fs.constants.O_WRONLY | fs.constants.O_CREAT, 0o600);
    try {
      return of.ftruncateSync(fd, of.writeSync(fd, 'xyz', 0));
    } finally {
      of.closeSync(fd);
    }
  },
  (of, dir) => of.readFileSync(`${dir}/log`, 'utf8'),
  (of, dir) => {
    const fd = of.openSync(`${dir}/log`, 'r');
    try {
      const bytes = Buffer.alloc(10);
      return [of.readSync(fd, bytes), of.readSync(fd, bytes), bytes.toString()];
    } finally {
      of.closeSync(fd);
    }
  },
  (of, dir) => of.openSync(`${dir}/none`, 'r'),
  (of, dir) => of.openSync(`${dir}/file/below`, 'r'),
  (of) => of.closeSync(12_345),
  (of) => of.writeSync(12_345, Buffer.from('x')),
  (of, dir) => of.symlinkSync('10.244.0.5,fd00::5', `${dir}/link`),
  (of, dir) => of.symlinkSync('other', `${dir}/link`),
  (of, dir) => of.readlinkSync(`${dir}/link`),
  (of, dir) => of.readlinkSync(`${dir}/none`),
  (of, dir) => of.readlinkSync(`${dir}/file`),
  (of, dir) => of.renameSync(`${dir}/empty`, `${dir}/a/moved`),
  (of, dir) => of.renameSync(`${dir}/empty`, `${dir}/a/moved`),
  (of, dir) => [of.existsSync(`${dir}/a/moved`), of.existsSync(`${dir}/none`)],
  (of, dir) => [of.existsSync(`${dir}/zero\0byte`), of.existsSync(`${dir}/link`)],
  (of, dir) => of.unlinkSync(`${dir}/a/moved`),
  (of, dir) => of.unlinkSync(`${dir}/a/moved`),
  (of, dir) => of.unlinkSync(`${dir}/a`),
  (of, dir) => of.statSync(`${dir}/none`, { throwIfNoEntry: false }),
  (of, dir) => of.statSync(`${dir}/file/below`, { throwIfNoEntry: false }),
  (of, dir) => of.statSync(`${dir}/none`),
  (of, dir) => [of.statSync(dir).isDirectory(), of.statSync(`${dir}/file`).isDirectory()],
  (of) => fieldsOf(of.statSync('/dev/null')),
  (of) => fieldsOf(of.statSync('/proc/self/ns/net')),
  (of) => fieldsOf(of.statSync('/etc/hostname')),
  (of) => String(of.statSync('/etc/hostname', { bigint: true }).mtimeNs),
  (of) => [of.statfsSync('/proc').type, of.statfsSync('/proc/self/ns/net').type],
  (of, dir) => of.statfsSync(`${dir}/none`),
  (of, dir) => of.accessSync(`${dir}/none`, fs.constants.X_OK),
  (of, dir) => of.accessSync(dir, fs.constants.W_OK),
  (of, dir) => of.readdirSync(dir),
  (of, dir) => of.rmSync(`${dir}/c`, { recursive: true, force: true }),
  (of, dir) => of.readdirSync(dir),
];

/** `ctimeMs` has a fraction, and doubles are added in another order. */
function fieldsOf({ dev, ino, mode, size, ctimeMs }: fs.Stats): unknown {
  return [dev, ino, mode, size, Math.round(ctimeMs)];
}

/** The outcome with the directory's name taken out of it. */
function outcomeOf(step: (typeof steps)[number], of: Fs, dir: string): string {
  const told = (value: unknown): string =>
    (JSON.stringify(value) ?? 'undefined').replaceAll(dir, 'DIR');
  try {
    return told({ returns: step(of, dir) });
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const { message, code, errno, syscall, path, dest } = error as typeof error &
      Partial<Record<'code' | 'errno' | 'syscall' | 'path' | 'dest', unknown>>;
    return told({ message, code, errno, syscall, path, dest });
  }
}

const [dir = ''] = process.argv.slice(2);
const differences = [];
for (const name of ['node', 'own']) fs.mkdirSync(`${dir}/${name}`);
for (const step of steps) {
  const expected = outcomeOf(step, fs, `${dir}/node`);
  const got = outcomeOf(step, own as unknown as Fs, `${dir}/own`);
  if (got !== expected) differences.push({ step: String(step), expected, got });
}
process.stdout.write(JSON.stringify({ compared: steps.length, differences }));

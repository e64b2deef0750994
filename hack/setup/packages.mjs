/** The npm packages of package-lock.json, among them the pinned Node. */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Refusal, runStep } from './run.mjs';

/**
 * What the packages' install scripts put in place. npm may be told not to run those
 * (`ignore-scripts`, or its policy for scripts); without these files nothing here works, so each
 * script is then run by name.
 */
const scripted = [
  {
    folder: 'node',
    product: 'bin/node',
    script: 'installArchSpecificPackage.js',
    minBytes: 1 << 20,
  },
  { folder: 'bun', product: 'bin/bun.exe', script: 'install.js', minBytes: 1 << 20 },
];

/**
 * Makes `node_modules` what package-lock.json says.
 *
 * @throws {Refusal} When npm fails
 */
export function installPackages(root, env, say) {
  const reason = staleness(root);
  if (reason !== undefined) {
    say(`installing npm packages (npm ci): ${reason}`);
    runStep('install npm packages', [...npm(env), 'ci', '--no-audit', '--no-fund'], {
      cwd: root,
      env,
    });
  }
  for (const { folder, product, script, minBytes } of scripted) {
    const home = join(root, 'node_modules', folder);
    if (isProduct(join(home, product), minBytes)) continue;
    say(`running the install script of npm package ${folder}, which npm left out`);
    runStep(`install npm package ${folder}`, [process.execPath, script], { cwd: home, env });
    if (!isProduct(join(home, product), minBytes)) {
      throw new Refusal(
        `cannot install npm package ${folder}: its install script made no ${product}`,
      );
    }
  }
}

/** Why `npm ci` must run, or undefined when node_modules holds what the lock file names. */
function staleness(root) {
  // npm writes its own record of what it installed, as the last step: an installation that was
  // interrupted has none.
  const installed = readPackages(join(root, 'node_modules/.package-lock.json'));
  if (installed === undefined) return 'node_modules is missing';
  const locked = readPackages(join(root, 'package-lock.json'));
  if (locked === undefined)
    throw new Refusal('cannot install npm packages: package-lock.json is missing');
  for (const [path, entry] of Object.entries(locked)) {
    // The entry '' is this project. Optional packages are for other machines.
    if (path === '' || (entry.optional && !(path in installed))) continue;
    if (
      installed[path]?.version !== entry.version ||
      installed[path]?.integrity !== entry.integrity
    ) {
      return `${path} is not ${entry.version}`;
    }
    if (!existsSync(join(root, path, 'package.json'))) return `${path} is missing`;
  }
  return undefined;
}

function readPackages(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8')).packages;
  } catch (error) {
    if (error.code === 'ENOENT') return undefined;
    throw new Refusal(`cannot read ${path}: ${error.message}`);
  }
}

/** bun's package ships a text file in the place of its program until its script has run. */
function isProduct(path, minBytes) {
  return statSync(path, { throwIfNoEntry: false })?.size >= minBytes;
}

/** The npm that runs us, else the one in PATH. */
function npm(env) {
  return env.npm_execpath?.endsWith('npm-cli.js') ? [process.execPath, env.npm_execpath] : ['npm'];
}

/** Programs that stand for those hack/setup.mjs calls, as text; hack/setup.test.ts puts them in place. */
import { join } from 'node:path';

/** Leaves the trace `npm ci` leaves: the packages and npm's own record of them. */
export function fakeNpm(home: string, { scripts = true } = {}): string {
  const modules = join(home, 'tree/node_modules');
  const made = ['node', 'bun', 'dependency'].flatMap((name) => [
    `/bin/mkdir -p ${modules}/${name}/bin`,
    `echo '{}' > ${modules}/${name}/package.json`,
  ]);
  const products = scripts
    ? [
        `/bin/ln -s ${process.execPath} ${modules}/node/bin/node`,
        `/bin/ln -s ${process.execPath} ${modules}/bun/bin/bun.exe`,
      ]
    : [
        `echo "${linkNode('bin/node')}" > ${modules}/node/installArchSpecificPackage.js`,
        `echo "${linkNode('bin/bun.exe')}" > ${modules}/bun/install.js`,
      ];
  return [
    'test "$1" = ci || exit 1',
    `/bin/rm -rf ${modules}`,
    ...made,
    ...products,
    `/bin/cp ${home}/record.json ${modules}/.package-lock.json`,
  ].join('\n');
}

function linkNode(product: string): string {
  return `require('fs').symlinkSync(process.execPath, '${product}')`;
}

/** Stands for the build: the command it makes prints its arguments, then does what the test says. */
export function buildScript(then = ''): string {
  const command = `console.log('podwire ran with ' + process.argv.slice(2).join(' ')); ${then}`;
  return `
    import { mkdirSync, writeFileSync } from 'node:fs';
    mkdirSync('dist', { recursive: true });
    for (const name of ['podwire-cni', 'podwire-node', 'podwire-proxy']) writeFileSync('dist/' + name, '');
    writeFileSync('dist/podwire', ${JSON.stringify(command)});
  `;
}

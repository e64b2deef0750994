/** The product's version, as `--version`, logs and the API server's User-Agent say it. */

/** Put in by the build, from package.json. */
declare const PODWIRE_VERSION: string | undefined;

/** Runs from source say so: no release is like them. */
export const version = typeof PODWIRE_VERSION === 'string' ? PODWIRE_VERSION : '0.0.0-source';

/** What a plugin's file looks like, and how ours are told from others'. */

/** What to install from. */
export interface PluginSource {
  /** The standalone executable. */
  readonly executable: string;
  /** What runtimes start in its place (cmd/podwire-cni/launcher.c); undefined where there is none. */
  readonly launcher: string | undefined;
  /** The plugins' names. */
  readonly names: readonly string[];
}

/**
 * In every launcher, of whatever version: it is how an installer knows that a file called `bridge`
 * is ours. Part of the text of its last error.
 */
export const launcherMark = 'Cannot run podwire-cni';

/** A launcher has ten kilobytes: what is larger need not be read to know that it is none. */
export const maxLauncherBytes = 65_536;

/** How the names of unfinished files start; no runtime calls a plugin so. */
export const temporaryPrefix = '.podwire-install-';

const keptSuffix = '.podwire-replaced';

/** Where a foreign file is kept that was replaced. */
export function keptName(name: string): string {
  return `.${name}${keptSuffix}`;
}

/** The name of the plugin whose foreign file this one keeps. */
export function nameOfKept(file: string): string | undefined {
  const isKept = file.startsWith('.') && file.endsWith(keptSuffix);
  return isKept ? file.slice(1, -keptSuffix.length) : undefined;
}

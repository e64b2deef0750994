/** Which files the CNI plugins need in a runtime's directory, and what to do to get there. Pure. */
import { keptName } from './plugin-files.ts';

/** A file of the directory under a plugin's name. */
export type Present =
  /** Just as it would be put. */
  | 'current'
  /** Ours, of another version or put in another way. */
  | 'outdated'
  /** Somebody else's: the reference plugin of that name. */
  | 'foreign';

/** What the directory holds. */
export interface PluginDirectory {
  /** By name; nothing there is no entry. */
  readonly files: ReadonlyMap<string, Present>;
  /** Names of foreign files that we replaced and kept. */
  readonly kept: ReadonlySet<string>;
  /** File names that an installer left which was killed. */
  readonly leftovers: readonly string[];
}

/** The one file that does the work; every plugin's name leads to it. */
export const executableName = 'podwire-cni';

/** The type that is ours alone: under this name nobody else's file can be. */
export const ownType = 'podwire';

export type InstallStep =
  | { readonly op: 'clear'; readonly file: string }
  /** In one step for whoever looks; `keepForeign`: what is there is put aside first. */
  | { readonly op: 'put'; readonly name: string; readonly keepForeign: boolean }
  /** Puts a foreign file back that was put aside. */
  | { readonly op: 'restore'; readonly name: string }
  | { readonly op: 'remove'; readonly name: string };

export interface InstallPlan {
  readonly steps: readonly InstallStep[];
  /** Names that stay with somebody else's file. */
  readonly left: readonly string[];
}

/**
 * The way to all plugins in place. The executable comes first: whoever is called by another name
 * runs it.
 *
 * @param names of the plugins
 */
export function planInstall(
  have: PluginDirectory,
  {
    names,
    replaceForeign,
  }: { readonly names: readonly string[]; readonly replaceForeign: boolean },
): InstallPlan {
  const left = names.filter((name) => have.files.get(name) === 'foreign' && !replaceForeign);
  const puts = [executableName, ...names]
    .filter((name) => have.files.get(name) !== 'current' && !left.includes(name))
    .map((name) => ({ op: 'put', name, keepForeign: have.files.get(name) === 'foreign' }) as const);
  return { steps: [...clears(have), ...puts], left };
}

/** The way to none of ours. The executable goes last: a call that runs may still need it. */
export function planRemoval(
  have: PluginDirectory,
  { names }: { readonly names: readonly string[] },
): InstallPlan {
  const left = names.filter((name) => have.files.get(name) === 'foreign');
  const steps = [...names, executableName].flatMap((name): readonly InstallStep[] => {
    // A package put its own there again: the one that was put aside is nobody's.
    if (left.includes(name)) {
      return have.kept.has(name) ? [{ op: 'clear', file: keptName(name) }] : [];
    }
    if (have.kept.has(name)) return [{ op: 'restore', name }];
    return have.files.has(name) ? [{ op: 'remove', name }] : [];
  });
  return { steps: [...clears(have), ...steps], left };
}

function clears({ leftovers }: PluginDirectory): readonly InstallStep[] {
  return leftovers.map((file) => ({ op: 'clear', file }));
}

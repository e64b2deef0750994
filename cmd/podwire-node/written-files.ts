/** Files of ours that others may delete or overwrite. */
import { readFileSync } from 'node:fs';
import { writeFileIfChanged } from './write-file.ts';

export class WrittenFiles {
  readonly #texts = new Map<string, string>();
  #writes = 0;

  /** How often one had to be written. */
  get writes(): number {
    return this.#writes;
  }

  /** Makes the file hold this text, as {@link writeFileIfChanged} does. Returns whether it wrote. */
  async write(path: string, text: string): Promise<boolean> {
    const hasWritten = await writeFileIfChanged(path, text);
    this.#texts.set(path, text);
    if (hasWritten) this.#writes += 1;
    return hasWritten;
  }

  /** What becomes of the file concerns nobody any more. */
  forget(path: string): void {
    this.#texts.delete(path);
  }

  /** Paths of those that do not hold what was written last. Synchronous: they are small. */
  notAsWritten(): readonly string[] {
    return [...this.#texts].flatMap(([path, text]) => (textIn(path) === text ? [] : [path]));
  }
}

function textIn(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // Whatever stands in the way is told by who writes it again.
    return undefined;
  }
}

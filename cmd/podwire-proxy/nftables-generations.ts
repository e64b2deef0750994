/**
 * Tells our own transactions from others'. The kernel counts all of them together, in all tables of
 * the namespace: one that we made and that raised the number by one is ours alone.
 */
export class Generations {
  readonly #read: () => number;
  /** All tables of ours were as they should be at this one. */
  #known: number | undefined;

  constructor(read: () => number) {
    this.#read = read;
  }

  /** Whether somebody else wrote since all was well, and the number to say so with. */
  look(): { readonly isFamiliar: boolean; readonly number: number } {
    const number = this.#read();
    return { isFamiliar: number === this.#known, number };
  }

  /** All is well at this number. */
  trust(number: number): void {
    this.#known = number;
  }

  /** We have just made one transaction. With others' beside it the number stays unfamiliar. */
  madeOne(): void {
    if (this.#known !== undefined && this.#read() === this.#known + 1) this.#known += 1;
  }
}

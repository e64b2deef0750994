/** The part of Bun's own modules we use, so that Node's types alone check the whole tree. */
declare module 'bun:ffi' {
  export function dlopen(
    path: string,
    definitions: Readonly<
      Record<string, { readonly args: readonly string[]; readonly returns: string }>
    >,
  ): { readonly symbols: Readonly<Record<string, (...args: unknown[]) => unknown>> };
  /** Reads from an address; under Bun pointers are numbers. */
  export const read: { i32(pointer: number, offset: number): number };
}

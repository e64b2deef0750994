/** What Bun has no setting for, changed in the executable that it compiles. */

/**
 * Environment variables by which every executable that Bun compiles can be turned into something
 * else: BUN_BE_BUN=1 makes it the `bun` command, BUN_OPTIONS adds its flags, and
 * BUN_BYTECODE_ORDER_OUT names a file that it then writes. A plugin gets its
 * runtime's environment, which is not ours to trust, and Bun has no setting against it; so the
 * names in the executable are made ones that no environment has.
 */
const switches = ['BUN_BE_BUN', 'BUN_OPTIONS', 'BUN_BYTECODE_ORDER_OUT'] as const;

/**
 * Makes the executable deaf to the variables that would make it something else. Changes `executable`.
 *
 * @throws {Error} a name that is not there: another Bun than this was written for
 */
export function removeSwitches(executable: Buffer): void {
  for (const name of switches) {
    let found = 0;
    for (let at = executable.indexOf(name); at >= 0; at = executable.indexOf(name, at)) {
      // "=" ends a name: no variable can be called so.
      executable.write('='.repeat(name.length), at, 'latin1');
      found++;
    }
    if (found === 0) throw new Error(`Cannot find ${name} in the executable: has Bun renamed it?`);
  }
}

/**
 * Sets the default of an option of mimalloc, the allocator in Bun, as its variable MIMALLOC_… would:
 * an executable has no say in its own environment. Changes `executable`.
 *
 * The table of options is an array of `mi_option_desc_t`: value (64 bits), whether the environment
 * was read (32), number (32), pointer to the name, pointer to an older name; mimalloc's
 * src/options.c.
 *
 * @param was the default there is now, to be sure that it is the table that was found
 * @throws {Error} no such option, or another default: another mimalloc than this was written for
 */
export function setAllocatorOption(
  executable: Buffer,
  name: string,
  { was, value }: { readonly was: number; readonly value: number },
): void {
  // Without what stands before it: a linker lets a name be the end of a longer one.
  for (const nameAt of offsetsOf(executable, Buffer.from(`${name}\0`))) {
    const address = addressOf(executable, nameAt);
    if (address === undefined) continue;
    const pointer = Buffer.alloc(8);
    pointer.writeBigUInt64LE(address);
    for (const pointerAt of offsetsOf(executable, pointer)) {
      const at = pointerAt - 16;
      const isUnread = at >= 0 && executable.readUInt32LE(at + 8) === 0;
      if (!isUnread || executable.readBigInt64LE(at) !== BigInt(was)) continue;
      executable.writeBigInt64LE(BigInt(value), at);
      return;
    }
  }
  throw new Error(
    `Cannot find mimalloc's option ${name} with default ${was} in the executable: has Bun another mimalloc?`,
  );
}

function* offsetsOf(bytes: Buffer, wanted: Buffer): Generator<number> {
  for (let at = bytes.indexOf(wanted); at >= 0; at = bytes.indexOf(wanted, at + 1)) yield at;
}

const ptLoad = 1;

/** Where a byte of the file is in memory: System V ABI, ELF-64, program headers. */
function addressOf(executable: Buffer, offset: number): bigint | undefined {
  const tableAt = Number(executable.readBigUInt64LE(32));
  const [entrySize, entries] = [executable.readUInt16LE(54), executable.readUInt16LE(56)];
  for (let i = 0; i < entries; i++) {
    const at = tableAt + i * entrySize;
    const start = Number(executable.readBigUInt64LE(at + 8));
    const size = Number(executable.readBigUInt64LE(at + 32));
    if (executable.readUInt32LE(at) !== ptLoad || offset < start || offset >= start + size)
      continue;
    return executable.readBigUInt64LE(at + 16) + BigInt(offset - start);
  }
  return undefined;
}

/** Writing small files again and again. */
import { closeSync, constants, ftruncateSync, openSync, writeSync } from 'node:fs';

/**
 * Gives a file this content, in place. Not by truncating it first, as writeFileSync does: ext4 then
 * writes the file to the disk when it is closed, and the next truncation waits for the disk, which
 * costs an ADD two milliseconds (auto_da_alloc in the kernel's Documentation/admin-guide/ext4.rst).
 */
export function overwriteFile(file: string, text: string, mode: number): void {
  const fd = openSync(file, constants.O_WRONLY | constants.O_CREAT, mode);
  try {
    ftruncateSync(fd, writeSync(fd, text, 0));
  } finally {
    closeSync(fd);
  }
}

/** Cuts a JSON list into its items while it arrives, so that nobody holds the whole text. */
import { AgentError } from '#pkg/errors/agent-error.ts';

export interface ItemSplitter {
  /** Takes the next bytes of the body, cut anywhere; calls back for each item they complete. */
  write(chunk: Uint8Array): void;
  /** The body is complete: the list without its items ({kind, metadata…}). Throws when it was cut. */
  finish(): Record<string, unknown>;
}

/** All of JSON's white space is at or below it. */
const space = 0x20;
const quote = 0x22;
const backslash = 0x5c;
const colon = 0x3a;
const comma = 0x2c;
const openBrace = 0x7b;
const closeBrace = 0x7d;
const openBracket = 0x5b;
const closeBracket = 0x5d;

/**
 * A splitter for `{"kind":…,"metadata":{…},"items":[{…},…]}` with its keys in any order. One pass
 * over the bytes finds where items begin and end; JSON.parse, per item, decides whether they are
 * JSON. A 57 MB list blocks the event loop for milliseconds this way, instead of half a second.
 * Throws AgentError `MalformedList`.
 */
export function createItemSplitter(onItem: (item: unknown) => void): ItemSplitter {
  // The envelope is everything outside the items; parsed at the end.
  let envelope: Uint8Array[] = [];
  let item: Uint8Array[] = [];
  let depth = 0;
  let inString = false;
  let escaped = false;
  /** Inside the array under the top-level key "items": depth is 2 between items. */
  let inItems = false;
  /** Top level: the next string is a key. */
  let expectKey = false;
  /** Bytes of the top-level key being read, or just read. */
  let key: number[] | undefined;
  let itemsNext = false;
  let complete = false;

  function write(chunk: Uint8Array): void {
    /** Where the part of the chunk that belongs to the envelope or to the item begins. */
    let from = 0;
    for (let at = 0; at < chunk.length; at++) {
      const byte = chunk[at] ?? 0;
      if (inString) {
        if (escaped) escaped = false;
        else if (byte === backslash) escaped = true;
        else if (byte === quote) inString = false;
        if (depth === 1 && expectKey && inString) key?.push(byte);
        continue;
      }
      switch (byte) {
        case quote:
          inString = true;
          if (depth === 1 && expectKey) key = [];
          if (inItems && depth === 2) throw malformed('an item is not an object');
          break;
        case colon:
          if (depth === 1 && expectKey) {
            expectKey = false;
            itemsNext = key !== undefined && keyText(key) === 'items';
            key = undefined;
          }
          break;
        case comma:
          if (depth === 1) {
            expectKey = true;
            itemsNext = false;
          }
          break;
        case openBrace:
        case openBracket:
          if (inItems && depth === 2) {
            if (byte === openBracket) throw malformed('an item is not an object');
            from = at;
          }
          depth += 1;
          if (depth === 1) expectKey = true;
          else if (depth === 2 && itemsNext && byte === openBracket) {
            inItems = true;
            itemsNext = false;
            envelope.push(Buffer.from(chunk.subarray(from, at + 1)));
          }
          break;
        case closeBrace:
        case closeBracket:
          depth -= 1;
          if (inItems && depth === 2) {
            item.push(chunk.subarray(from, at + 1));
            const done = item;
            item = [];
            onItem(parse(done));
          } else if (inItems && depth === 1) {
            inItems = false;
            from = at;
          } else if (depth === 0) complete = true;
          break;
        default:
          if (inItems && depth === 2 && byte > space) throw malformed('an item is not an object');
      }
    }
    // Copies: what waits for the next chunk must not share memory with the socket's buffers.
    if (!inItems) envelope.push(Buffer.from(chunk.subarray(from)));
    else if (depth > 2) item.push(Buffer.from(chunk.subarray(from)));
  }

  /** What follows the end of the list is in the envelope too, and makes it no JSON. */
  function finish(): Record<string, unknown> {
    if (!complete) throw malformed('it ended early');
    const list = parse(envelope);
    envelope = [];
    if (typeof list !== 'object' || list === null || Array.isArray(list)) {
      throw malformed('it is not an object');
    }
    return { ...list };
  }

  return { write, finish };
}

function keyText(bytes: readonly number[]): unknown {
  return parse([Uint8Array.of(quote, ...bytes, quote)]);
}

function parse(parts: readonly Uint8Array[]): unknown {
  const [only] = parts;
  const bytes = parts.length === 1 && only !== undefined ? only : Buffer.concat(parts);
  try {
    return JSON.parse(
      Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8'),
    );
  } catch (error) {
    throw new AgentError('MalformedList', 'Cannot read a list: it is not JSON', { cause: error });
  }
}

function malformed(state: string): AgentError {
  return new AgentError('MalformedList', `Cannot read a list: ${state}`);
}

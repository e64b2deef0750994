/** Lists as answers: written in pieces, so that a long one blocks nobody. */
import { pipeline } from 'node:stream/promises';
import { Readable } from 'node:stream';
import { constants, createGzip } from 'node:zlib';
import type { JsonObject } from '#pkg/embedded-api/json.ts';
import type { KindInfo } from '#pkg/embedded-api/kinds.ts';
import type { ListPage } from '#pkg/embedded-api/list.ts';
import type { Exchange } from './exchange.ts';
import { listHead, listItem, representationOf } from './representation.ts';

/** Text gathered before it is written: small enough to let other requests in between. */
const pieceChars = 64 * 1024;

/** kube-apiserver compresses what is longer than this. */
const gzipFromItems = 100;

/** Sends one page, compressed when it is long and the client can read that. */
export async function sendList(
  exchange: Exchange,
  kind: KindInfo,
  page: ListPage,
  nowMs: number,
): Promise<void> {
  const pieces = listPieces(exchange, kind, page, nowMs);
  const isGzip =
    page.items.length >= gzipFromItems && exchange.header('accept-encoding').includes('gzip');
  const type = { 'content-type': 'application/json' };
  if (isGzip) {
    exchange.startStream({ ...type, 'content-encoding': 'gzip', vary: 'accept-encoding' });
    const gzip = createGzip({ level: constants.Z_BEST_SPEED });
    await pipeline(Readable.from(pieces), gzip, exchange.sink, {
      signal: exchange.ended,
    }).catch((error: unknown) => {
      if (!exchange.ended.aborted) throw error;
    });
    return;
  }
  exchange.startStream(type);
  for (const piece of pieces) {
    await exchange.write(piece);
    if (exchange.ended.aborted) return;
  }
  exchange.end();
}

function* listPieces(
  exchange: Exchange,
  kind: KindInfo,
  page: ListPage,
  nowMs: number,
): Iterable<string> {
  const form = representationOf(exchange);
  const metadata: JsonObject = {
    resourceVersion: String(page.revision),
    ...(page.continueToken === '' ? {} : { continue: page.continueToken }),
    ...(page.remainingItemCount === undefined
      ? {}
      : { remainingItemCount: page.remainingItemCount }),
  };
  const { head, itemsKey } = listHead(kind, metadata, form);
  let text = `${JSON.stringify(head).slice(0, -1)},${JSON.stringify(itemsKey)}:[`;
  for (const [i, object] of page.items.entries()) {
    text += (i === 0 ? '' : ',') + JSON.stringify(listItem(kind, object, form, nowMs));
    if (text.length < pieceChars) continue;
    yield text;
    text = '';
  }
  yield `${text}]}\n`;
}

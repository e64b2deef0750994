/** Keys that a JSON object has twice: JSON.parse() takes the last one and says nothing. */

/**
 * The first key that the object at `path` ("args.cni.sysctl") has twice; undefined when it has none,
 * or is not there.
 *
 * @param text valid JSON
 */
export function repeatedKey(text: string, path: string): string | undefined {
  // The path of every open object or array, and the keys an object has had.
  const open: { readonly path: string; readonly keys: Set<string> | undefined }[] = [];
  let key = '';
  let expectKey = false;
  for (const [token] of text.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\],:]/g)) {
    const inner = open.at(-1);
    if (token === '{' || token === '[') {
      const at = inner === undefined ? '' : [inner.path, key].filter((p) => p !== '').join('.');
      open.push({ path: at, keys: token === '{' ? new Set() : undefined });
      expectKey = token === '{';
      key = '';
    } else if (token === '}' || token === ']') {
      open.pop();
      expectKey = false;
    } else if (token === ',') {
      expectKey = inner?.keys !== undefined;
    } else if (token !== ':' && expectKey && inner?.keys !== undefined) {
      key = String(JSON.parse(token));
      if (inner.path === path && inner.keys.has(key)) return key;
      inner.keys.add(key);
      expectKey = false;
    }
  }
  return undefined;
}

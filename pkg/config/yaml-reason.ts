/** Why a text is no YAML, in one line and without the text: it may hold a secret. */
import { YAMLParseError } from 'yaml';
import { messageOf } from '#pkg/errors/agent-error.ts';

/** What the parser threw or listed: "Map keys must be unique at line 2, column 1". */
export function yamlReason(error: unknown): string {
  const line = messageOf(error).split('\n')[0]?.replace(/:$/, '') ?? '';
  if (!(error instanceof YAMLParseError) || error.code !== 'MULTIPLE_DOCS') return line;
  const { line: row = 0, col = 0 } = error.linePos?.[0] ?? {};
  return `another document at line ${row}, column ${col}, expected one`;
}

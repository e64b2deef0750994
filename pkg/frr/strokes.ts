/**
 * Which commands bgpd must be given at once. What it reads at one time it carries out before it does
 * anything else (FRR lib/vty.c, vtysh_read). Between two commands that come one after the other a
 * neighbour may connect, and then the session has what was said until then.
 */

/** The same commands in the same order; those of one neighbour that follow each other are together. */
export function inStrokes(commands: readonly string[]): readonly (readonly string[])[] {
  const strokes: string[][] = [];
  for (const command of commands) {
    const last = strokes.at(-1);
    const neighbor = joining.exec(last?.[0] ?? '')?.[1];
    if (neighbor !== undefined && command.startsWith(`neighbor ${neighbor} `)) last?.push(command);
    else strokes.push([command]);
  }
  return strokes;
}

/** Makes a neighbour, which bgpd then speaks to. */
const joining = /^neighbor (\S+) peer-group \S/;

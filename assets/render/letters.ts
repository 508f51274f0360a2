/**
 * A stroke alphabet: each glyph is a few polylines on a grid 4 wide and 8 high. Rows count upwards;
 * descenders reach 0, the baseline is 2, small letters reach 6, capitals 8.
 */
import { segment } from "./canvas.ts";

/** "xyxy.." digits per polyline, polylines separated by a space. */
const GLYPHS: Readonly<Record<string, string>> = {
  a: "4642 4536160503123243",
  b: "0802 0516364543321203",
  c: "4536160503123243",
  d: "4842 4536160503123243",
  e: "04444536160503123243",
  f: "48382722 0636",
  g: "4536160503123243 46413010",
  h: "0802 0516364542",
  i: "2622 2828",
  j: "36312010 3838",
  k: "0802 4603 1442",
  l: "2822",
  m: "0602 05162522 25364542",
  n: "0602 0516364542",
  o: "160503123243453616",
  p: "0600 0516364543321203",
  q: "4640 4536160503123243",
  r: "0602 05163645",
  s: "45361605143443321203",
  t: "28233242 0646",
  u: "0603123243 4642",
  v: "062246",
  w: "0612243246",
  x: "0642 0246",
  y: "0622 4610",
  z: "06460242",
  A: "022842 1434",
  B: "0208384746350502 3544433202",
  H: "0802 4842 0545",
  I: "2822",
  L: "080242",
  O: "180703123243473818",
  S: "473818070615354443321203",
  T: "0848 2822",
  W: "0812263248",
  "1": "172822",
  "2": "07183847450242",
  "4": "380444 3832",
  ".": "2223",
  ",": "2311",
  "-": "1434",
};

const STROKES: ReadonlyMap<string, readonly (readonly number[])[]> = new Map(
  Object.entries(GLYPHS).map(([letter, code]) => [
    letter,
    code.split(" ").map((line) => [...line].map(Number)),
  ]),
);

/** Advance from one letter to the next, in grid units. */
const ADVANCE = 5.6;

/**
 * Distance of (x, y) to the strokes of `text`, in grid units; x starts at the first letter's left
 * edge, y counts upwards as in the grid. Far from any stroke a large number.
 */
export function textDistance(text: string, x: number, y: number): number {
  const index = Math.floor((x + 0.8) / ADVANCE);
  const strokes = STROKES.get(text[index] ?? " ");
  if (strokes === undefined || y < -1 || y > 9) return 1e9;
  const gx = x - index * ADVANCE;
  let nearest = 1e9;
  for (const line of strokes) {
    for (let i = 0; i + 3 < line.length; i += 2) {
      nearest = Math.min(nearest, segment(gx, y, line[i], line[i + 1], line[i + 2], line[i + 3]));
    }
  }
  return nearest;
}

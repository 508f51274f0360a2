/**
 * Looks and behaviour of the report page: its style sheet and its only script. Palette: ink, paper,
 * accent, warn; a dark counterpart of each; on paper, sliders become pictures side by side.
 */

/** Style sheet of the page. */
export const STYLE = `
:root { color-scheme: light dark; --ink: #1b1b1f; --paper: #fbfaf7; --accent: #2f6f8f; --warn: #b5542c;
  --soft: #65656d; --rule: #dedad0; --panel: #f3f0e8; --cell: #2f6f8f;
  --s2: #4f7d3c; --s3: #8a4f8f; --s4: #a07a1c; --s5: #4a4a55; }
@media (prefers-color-scheme: dark) { :root { --ink: #ebe8e0; --paper: #17171b; --accent: #7ab8d6;
  --warn: #e08a62; --soft: #a3a1a0; --rule: #35353c; --panel: #202026;
  --s2: #9cc686; --s3: #cf9ad3; --s4: #dcb85c; --s5: #b9b9c4; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 920px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 12px; letter-spacing: -0.01em; }
h2 { font-size: 1.15rem; margin: 44px 0 12px; padding-bottom: 6px; border-bottom: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 0; }
h1, h2, h3, dd { overflow-wrap: anywhere; }
pre { margin: 0; padding: 10px 14px; background: var(--panel); border-left: 3px solid var(--accent);
  border-radius: 0 4px 4px 0; font: 0.86rem/1.5 ui-monospace, "SF Mono", Consolas, monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 14px 24px;
  margin: 24px 0 0; }
dt { color: var(--soft); font-size: 0.8rem; }
dd { margin: 0; font-weight: 600; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.92rem; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 12px; text-align: left; border-bottom: 1px solid var(--rule); }
th { color: var(--soft); font-weight: 600; font-size: 0.8rem; white-space: nowrap; vertical-align: bottom; }
td.number, th.number { text-align: right; }
tbody tr:hover { background: var(--panel); }
.pairs { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 270px), 1fr)); gap: 26px 18px; }
figure { margin: 0; break-inside: avoid; }
.unit { margin: 0; color: var(--soft); font-size: 0.85rem; }
figcaption p { margin: 2px 0 8px; color: var(--soft); font-size: 0.88rem; }
.stage { --cut: 50%; position: relative; overflow: hidden; border-radius: 4px; background: var(--panel); }
.stage:focus-within { outline: 3px solid var(--accent); outline-offset: 2px; }
.stage img { display: block; width: 100%; height: auto; image-rendering: pixelated; }
.stage .left { position: absolute; inset: 0; clip-path: inset(0 calc(100% - var(--cut)) 0 0); }
.stage .left img { height: 100%; }
.stage .bar { position: absolute; top: 0; bottom: 0; left: var(--cut); width: 2px; margin-left: -1px;
  background: #fff; box-shadow: 0 0 3px rgb(0 0 0 / 70%); pointer-events: none; }
.stage .bar::after { content: "\\2194"; position: absolute; top: 50%; left: 50%; width: 32px; height: 32px;
  margin: -16px; border-radius: 50%; background: #fff; color: #1b1b1f; font: 18px/31px system-ui, sans-serif;
  text-align: center; box-shadow: 0 1px 4px rgb(0 0 0 / 50%); }
.stage input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0;
  cursor: ew-resize; touch-action: pan-y; }
.tag { position: absolute; bottom: 8px; max-width: 46%; padding: 2px 8px; border-radius: 3px; font-size: 0.78rem;
  color: #fff; background: rgb(20 20 24 / 72%); pointer-events: none; }
.tag.at-left { left: 8px; } .tag.at-right { right: 8px; }
.curve { margin: 0 0 30px; }
ul.legend { display: flex; flex-wrap: wrap; gap: 2px 18px; list-style: none; margin: 4px 0 6px; padding: 0;
  font-size: 0.85rem; color: var(--soft); }
ul.legend svg { width: 30px; height: 10px; margin-right: 7px; vertical-align: middle; }
svg.plot { overflow: visible; display: block; width: 100%; height: auto; }
svg.heat { display: block; max-width: 100%; height: auto; }
svg text { fill: var(--ink); font-size: 13px; font-family: inherit; font-variant-numeric: tabular-nums; }
svg text.tick, svg text.label { fill: var(--soft); }
svg .grid { stroke: var(--rule); fill: none; } svg .axis { stroke: var(--soft); fill: none; }
svg .line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
svg .raw { fill: none; stroke-width: 1; opacity: 0.3; stroke-linejoin: round; }
.s0 { stroke: var(--accent); } .s1 { stroke: var(--warn); stroke-dasharray: 8 4; }
.s2 { stroke: var(--s2); stroke-dasharray: 16 4; } .s3 { stroke: var(--s3); stroke-dasharray: 10 4 2 4; }
.s4 { stroke: var(--s4); } .s5 { stroke: var(--s5); stroke-dasharray: 4 4; }
.s6 { stroke: var(--soft); stroke-dasharray: 2 5; }
.raw { stroke-dasharray: none !important; }
svg .point circle, svg .point rect, svg .point path { stroke: var(--paper); stroke-width: 1.5; }
.p0 { fill: var(--soft); } .p1 { fill: var(--warn); } .p2 { fill: var(--accent); }
.p3 { fill: var(--s3); } .p4 { fill: var(--s4); } .p5 { fill: var(--s2); } .p6 { fill: var(--s5); }
svg .cell { fill: var(--cell); rx: 2px; }
svg text.cell-strong { fill: #fff; } svg text.cell-weak { fill: var(--ink); }
svg text.cell-strong, svg text.cell-weak { font-size: 12px; }
.empty, footer { color: var(--soft); font-size: 0.85rem; }
footer { margin-top: 48px; }
@media (max-width: 560px) { main { padding: 20px 14px 40px; } svg.plot text { font-size: 22px; }
  svg.plot .line { stroke-width: 3.5; } h1 { font-size: 1.4rem; } th, td { padding: 6px 8px; }
  dl { grid-template-columns: repeat(2, 1fr); gap: 12px 16px; } }
@media print { :root { color-scheme: light; --ink: #1b1b1f; --paper: #fff; --accent: #2f6f8f; --warn: #b5542c;
  --soft: #55555c; --rule: #cfcbc1; --panel: #f3f0e8; --s2: #4f7d3c; --s3: #8a4f8f;
  --s4: #a07a1c; --s5: #4a4a55; }
  main { max-width: none; padding: 0; } .pairs { grid-template-columns: 1fr; }
  .stage { display: grid; grid-template-columns: 1fr 1fr; gap: 8px; overflow: visible; max-width: 640px; }
  .stage .left { position: static; clip-path: none; order: -1; } .stage .bar, .stage input, footer span { display: none; }
  .stage .tag { position: static; max-width: none; background: none; color: var(--ink); padding: 0; }
  h2 { break-after: avoid; } .curve, tr { break-inside: avoid; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
`;

/** Moves a picture's cut with its range input; without scripts the cut stays in the middle. */
export const SCRIPT = `
for (const input of document.querySelectorAll(".stage input")) {
  const move = () => input.parentElement.style.setProperty("--cut", input.value + "%");
  input.addEventListener("input", move);
  move();
}
`;

// `npm run test:soak`: a server's load for SPR2Q_SOAK_SECONDS (300 where it is not set), in a process of
// its own: queues always full, aborts, readers that leave, models reloaded. Passes where nothing
// unexpected was thrown, every call ended, and resident memory did not rise.
import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const env = { ...process.env };
env.SPR2Q_PACKAGE ??= join(here, "..", "..");
const script = join(here, "scripts", "soak.mjs");
const options = { env, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] };
const { stdout, status, signal } = spawnSync(process.execPath, ["--expose-gc", script], options);
const line = stdout.split("\n").findLast((text) => text.startsWith("RESULT "));
if (status !== 0 || !line) {
  console.error(`the soak ended with ${signal ?? status}`);
  process.exit(1);
}
const result = JSON.parse(line.slice(7));
const { counts, unexpected, waiting, judged, megabytesPerCall, most, held } = result;
/** Samples (one in ten calls) from which on a rise of memory can be told from its noise. */
const ENOUGH = 30;
console.log(JSON.stringify(counts));
console.log(
  judged < ENOUGH
    ? `memory is not judged: too few calls behind the first 300; at most ${most.toFixed(0)} MB`
    : `${megabytesPerCall.toFixed(4)} MB a call, at most ${most.toFixed(0)} MB resident`,
);
const failures = [
  ...unexpected.map((text) => `unexpected: ${text}`),
  ...(waiting.some(Boolean) ? [`calls left: ${waiting}`] : []),
  ...(held > 0 ? [`${held} bytes of constants left`] : []),
  ...(judged >= ENOUGH && megabytesPerCall > 0.02 ? ["memory rises by over 0.02 MB a call"] : []),
  ...(counts.finished < 10 || counts.aborted < 1 || counts.left < 1 ? ["too little happened"] : []),
];
for (const failure of failures) console.error(failure);
process.exit(failures.length ? 1 : 0);

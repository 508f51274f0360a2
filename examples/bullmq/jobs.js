/**
 * What producers and workers agree on: the queue's name, how a job is called, where its files lie.
 *
 * Redis holds small things only. Images go into a folder that all machines see (a network file system;
 * an object store would do), under names made of their contents, so that writing one twice is harmless.
 */
import { createHash, randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";

export const QUEUE = "spr2q";

/** Channel on which the workers hear of cancelled jobs, and the key that tells a later attempt. */
export const CANCEL_CHANNEL = "spr2q:cancel";
export const cancelKey = (id) => `spr2q:cancelled:${id}`;

/** Seconds that Redis remembers finished jobs, failed ones, and that one was cancelled. */
const KEPT = { completed: 3600, failed: 24 * 3600, cancelled: 24 * 3600 };

/** Three attempts, the second after one second, the third after two more. */
export const JOB_OPTIONS = {
  attempts: 3,
  backoff: { type: "exponential", delay: 1000 },
  removeOnComplete: { age: KEPT.completed },
  removeOnFail: { age: KEPT.failed },
};
export const CANCEL_SECONDS = KEPT.cancelled;

/** SHA-256 of a file in hexadecimal digits. */
export async function hashFile(path) {
  const hash = createHash("sha256");
  for await (const bytes of createReadStream(path)) hash.update(bytes);
  return hash.digest("hex");
}

/** Name of the job that enlarges these bytes with this model: the same work has the same name. */
export function jobId(bytes, { modelHash, seed }) {
  const hash = createHash("sha256").update(modelHash).update(`:${seed}:`).update(bytes);
  return hash.digest("hex");
}

/** Where a job's image and its result lie. */
export function jobFiles(store, id) {
  return { input: join(store, `${id}.in`), output: join(store, `${id}.png`) };
}

/** True where a file is there. Files appear whole: they are written under another name first. */
export function exists(path) {
  return stat(path).then(
    () => true,
    () => false,
  );
}

/** Writes a file so that nobody sees half of it. */
export async function writeWhole(path, bytes) {
  const temporary = `${path}.${randomUUID()}.tmp`;
  try {
    await writeFile(temporary, bytes);
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** Fails where the folder that all machines share is not there, before anything is lost in another. */
export async function checkStore(store) {
  if (!(await exists(store)))
    throw new Error(`STORE: there is no folder ${store}; make or mount it`);
}

/**
 * Removes what writers that were killed left in the store: temporary files, ours and spr2q's, that
 * nobody has written to for `milliseconds`. Returns how many.
 */
export async function sweep(store, milliseconds) {
  const names = (await readdir(store)).filter((name) => name.endsWith(".tmp"));
  const stale = [];
  for (const path of names.map((name) => join(store, name))) {
    const found = await stat(path).catch(() => undefined); // its writer was faster
    if (found && Date.now() - found.mtimeMs > milliseconds) stale.push(path);
  }
  await Promise.all(stale.map((path) => rm(path, { force: true })));
  return stale.length;
}

/**
 * The router's noise once more, in BigInt and Math.log: what core/philox.hpp promises about its
 * key, counter and words, told by someone who did not write it.
 */
const MASK = 0xffffffffn;

/** Philox4x32-10: four counter words and two key words to four random words. */
export function philox(counter: readonly bigint[], key: readonly bigint[]): bigint[] {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const a = c0 * 0xd2511f53n;
    const b = c2 * 0xcd9e8d57n;
    [c0, c1, c2, c3] = [(b >> 32n) ^ c1 ^ k0, b & MASK, (a >> 32n) ^ c3 ^ k1, a & MASK];
    k0 = (k0 + 0x9e3779b9n) & MASK;
    k1 = (k1 + 0xbb67ae85n) & MASK;
  }
  return [c0, c1, c2, c3];
}

/** -log(-log U) of classes 0 ... count-1 of one token; `tile` includes the sample. */
export function gumbelNoise(
  seed: number,
  tile: number,
  layer: number,
  token: number,
  count: number,
): number[] {
  const noise: number[] = [];
  for (let k = 0; k < count; k++) {
    const block = 16 * Math.floor(k / 64) + (k % 16);
    const place = BigInt(layer * 65536 + block);
    const counter = [BigInt(token), place, BigInt(tile) & MASK, BigInt(tile) >> 32n];
    const words = philox(counter, [BigInt(seed) & MASK, BigInt(seed) >> 32n]);
    const cell = Number(words[Math.floor(k / 16) % 4] >> 8n);
    noise.push(-Math.log(-Math.log(Math.max(cell, 0.5) / 2 ** 24)));
  }
  return noise;
}

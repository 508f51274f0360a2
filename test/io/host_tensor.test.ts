import { expect, test } from "vitest";
import {
  bfloat16ToFloat32,
  firstNonFinite,
  halfToFloat32,
  narrowIntegers,
  toFloat16,
  toFloat32,
  viewAs,
} from "../../lib/io/host_tensor.ts";
import { random } from "./helpers.ts";

/** Half to float by the definition of the format, independent of the library. */
function referenceHalf(bits: number): number {
  const view = new DataView(new ArrayBuffer(4));
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 1023;
  if (exponent === 0) return (bits >> 15 ? -1 : 1) * mantissa * 2 ** -24;
  const wide = exponent === 31 ? 255 : exponent + 112;
  view.setUint32(0, (((bits >> 15) << 31) | (wide << 23) | (mantissa << 13)) >>> 0);
  return view.getFloat32(0);
}

const ALL_HALVES = Uint16Array.from({ length: 65536 }, (_, i) => i);

test("every half converts to the float that the format defines", () => {
  const floats = halfToFloat32(ALL_HALVES);
  for (let i = 0; i < 65536; i++) {
    if (!Object.is(floats[i], referenceHalf(i))) expect.fail(`half ${i} became ${floats[i]}`);
  }
});

test("every half survives the way to float and back", () => {
  const back = toFloat16(halfToFloat32(ALL_HALVES));
  for (let i = 0; i < 65536; i++) {
    const isNaNBits = (i & 0x7c00) === 0x7c00 && (i & 0x3ff) !== 0;
    if (isNaNBits) expect((back[i] & 0x7c00) === 0x7c00 && (back[i] & 0x3ff) !== 0).toBe(true);
    else if (back[i] !== i) expect.fail(`half ${i} became ${back[i]}`);
  }
});

test("between neighbouring halves the nearer wins, and a tie goes to the even one", () => {
  for (let i = 0; i < 0x7bff; i++) {
    const low = referenceHalf(i);
    const high = referenceHalf(i + 1);
    const middle = (low + high) / 2; // exact in float32
    const even = i % 2 === 0 ? i : i + 1;
    const quarter = (high - low) / 4096; // exact in float32 too
    const got = toFloat16(Float32Array.of(middle, middle - quarter, middle + quarter, -middle));
    if (got[0] !== even || got[1] !== i || got[2] !== i + 1 || got[3] !== (even | 0x8000)) {
      expect.fail(`around half ${i}: ${got}`);
    }
  }
});

test("floats beyond the halves become zero or infinity exactly at the halfway points", () => {
  const beyond = [65519.996, 65520, 1e10, -1e10, 2 ** -25, -(2 ** -26), 2 ** -25 * 1.0000001, 0];
  expect([...toFloat16(Float32Array.from(beyond))]).toEqual([
    0x7bff, 0x7c00, 0x7c00, 0xfc00, 0, 0x8000, 1, 0,
  ]);
  expect(toFloat16(Float32Array.of(Number.NaN))[0] & 0x7fff).toBe(0x7e00);
});

test("a rounded half is never further from the float than half a step", () => {
  const next = random(1);
  const values = Float32Array.from(
    { length: 20000 },
    () => (next() - 0.5) * 2 ** (next() * 40 - 26),
  );
  const back = halfToFloat32(toFloat16(values));
  for (let i = 0; i < values.length; i++) {
    if (Math.abs(values[i]) >= 65504) continue;
    const exponent = Math.max(-14, Math.floor(Math.log2(Math.abs(values[i]))));
    if (Math.abs(back[i] - values[i]) > 2 ** (exponent - 11))
      expect.fail(`${values[i]} ${back[i]}`);
  }
});

test("bfloat16 bits are the upper half of a float", () => {
  expect([...bfloat16ToFloat32(Uint16Array.of(0x3f80, 0xc000, 0x7f80, 0x0001))]).toEqual([
    1,
    -2,
    Number.POSITIVE_INFINITY,
    2 ** -133,
  ]);
});

test("a float tensor is handed out without a copy, others are converted", () => {
  const data = Float32Array.of(1, 2);
  expect(toFloat32({ shape: [2], dtype: "f32", data })).toBe(data);
  const long = { shape: [2], dtype: "i64", data: BigInt64Array.of(-3n, 2n ** 40n) } as const;
  expect([...toFloat32(long)]).toEqual([-3, 2 ** 40]);
  expect([...toFloat32({ shape: [2], dtype: "u8", data: Uint8Array.of(0, 255) })]).toEqual([
    0, 255,
  ]);
  expect([...toFloat32({ shape: [1], dtype: "f16", data: Uint16Array.of(0x3c00) })]).toEqual([1]);
});

test("64-bit integers narrow only where all of them fit", () => {
  expect(narrowIntegers([2], BigInt64Array.of(2n ** 31n - 1n, -(2n ** 31n))).dtype).toBe("i32");
  expect(narrowIntegers([2], BigInt64Array.of(2n ** 31n, 0n)).dtype).toBe("i64");
});

test("bytes at an odd address are copied, not misread", () => {
  const bytes = new Uint8Array(13);
  new DataView(bytes.buffer).setFloat32(1, 1.5, true);
  const view = viewAs(Float32Array, bytes.subarray(1, 5));
  expect([...view]).toEqual([1.5]);
});

test("the first NaN or infinity is found in floats and in halves", () => {
  const floats = Float32Array.of(1, 2, Number.NaN);
  expect(firstNonFinite({ shape: [3], dtype: "f32", data: floats })).toBe(2);
  const halves = Uint16Array.of(0x7bff, 0xfc00);
  expect(firstNonFinite({ shape: [2], dtype: "f16", data: halves })).toBe(1);
  expect(firstNonFinite({ shape: [1], dtype: "i32", data: Int32Array.of(5) })).toBe(-1);
});

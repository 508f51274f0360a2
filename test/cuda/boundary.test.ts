/** What the functions around plans and tensors on the GPU refuse before any of it reaches native code. */
import { beforeAll, describe, expect, test } from "vitest";
import { describeCuda, type DevicePlanHandle, type F32, native } from "../../lib/binding.ts";
import { addressOf, DeviceMemory } from "../../lib/device.ts";

const { code, hostMemory } = describeCuda();
const gelu = native().opNames().indexOf("gelu");
/** gelu from the plan's input to its output, four floats each. */
const CALL = [gelu, -1, -1, 1, 0, 4, 0, 2, 0, 4, 0, 4];
const refused = (pattern: RegExp) =>
  expect.objectContaining({ code: "ERR_ARGUMENT", message: expect.stringMatching(pattern) });

describe.skipIf(!hostMemory || code !== "OK")("arguments on the shim (npm run test:cuda)", () => {
  let memory: DeviceMemory;
  let plan: DevicePlanHandle;
  const four = Float32Array.of(1, 2, 3, 4);
  const list = Float64Array.from(CALL);

  beforeAll(() => {
    memory = new DeviceMemory();
    plan = native().createDevicePlan(list, [], 0, 4, 4);
  });

  test("a list of calls of another kind, and sizes that are none", () => {
    const create = native().createDevicePlan as (...values: unknown[]) => DevicePlanHandle;
    expect(() => create(Float32Array.from(CALL), [], 0, 4, 4)).toThrow(refused(/createDevicePlan/));
    for (const size of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, "4"]) {
      expect(() => create(list, [], size, 4, 4)).toThrow(refused(/arenaBytes/));
      expect(() => create(list, [], 0, size, 4)).toThrow(refused(/inputFloats/));
      expect(() => create(list, [], 0, 4, size)).toThrow(refused(/outputFloats/));
    }
  });

  test("arrays that a run would read or write past their end, or that may move", async () => {
    const n = native();
    const run = (...[input, output, cancel, tile]: unknown[]) =>
      n.runDevicePlan(plan, input as F32, output as F32, cancel as null, tile as number);
    const [bytes, out] = [new Uint8Array(4), new Float32Array(4)];
    expect(() => run(bytes, out, null, 0)).toThrow(refused(/input is another kind/));
    expect(() => run(four, bytes, null, 0)).toThrow(refused(/output is another kind/));
    expect(() => run(four, out.subarray(1), null, 0)).toThrow(refused(/output is smaller/));
    expect(() => run(four, out, new Uint8Array(1), 0)).toThrow(refused(/cancel is another kind/));
    expect(() => run(four, out, new Int32Array(0), 0)).toThrow(refused(/cancel is smaller/));
    expect(() => run(null, out, null, 0)).toThrow(refused(/runDevicePlan/));
    for (const tile of [0.5, Number.NaN, 2 ** 60, null]) {
      expect(() => run(four, out, null, tile)).toThrow(refused(/noiseTile/));
    }
    const Growable = ArrayBuffer as unknown as new (size: number, options: object) => ArrayBuffer;
    const growing = new Float32Array(new Growable(16, { maxByteLength: 64 }));
    expect(() => run(growing, out, null, 0)).toThrow(refused(/may change its size/));
    expect(await run(four, out, new Int32Array(1), 3)).toBe(true);
    expect(out[3]).toBeCloseTo(4, 2);
  });

  test("places of the GPU that are no tensor's", () => {
    const [x, y] = [memory.floats(memory.take(16), 4), memory.floats(memory.take(16), 4)];
    const n = native();
    const [from, to] = [addressOf(x), addressOf(y)];
    for (const place of [from + 1, -1, Number.NaN, 1e300, "0"]) {
      expect(() => n.runDevicePlanOn(plan, place as number, to, 0)).toThrow(/of the plan's size/);
    }
    expect(() => n.runDevicePlanOn(plan, from, to, 0.5)).toThrow(refused(/noiseTile/));
    const call = n.gelu as (...values: unknown[]) => void;
    const places = [
      [from + 1, 3, 4],
      [from, 2 ** 62, 4],
      [from, -1, 4],
      [from, 0.5, 4],
      [Number.NaN, 4, 4],
    ];
    for (const place of places) {
      expect(() => call(Float64Array.from(place), Float64Array.of(to, 4, 4), 3)).toThrow(
        refused(/gelu: x names memory/),
      );
    }
    n.runDevicePlanOn(plan, from, to, 0);
    n.releaseDevicePlan(plan);
    n.releaseDevicePlan(plan);
    const disposed = expect.objectContaining({ code: "ERR_DISPOSED" });
    expect(() => n.runDevicePlanOn(plan, from, to, 0)).toThrow(disposed);
    expect(() => n.releaseDevicePlan(null as never)).toThrow(refused(/takes a device plan/));
  });
});

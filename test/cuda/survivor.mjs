// A process of its own for failures.test.ts: node survivor.mjs MODEL. Tries the GPU twice, then works
// on the CPU, and prints what came of it as JSON. The shim's environment says what goes wrong.
import { DeviceMemory } from "../../dist/lib/device.js";
import { Upscaler } from "../../dist/lib/index.js";

const image = {
  width: 16,
  height: 16,
  channels: 3,
  depth: 8,
  data: Uint8Array.from({ length: 768 }, (_, i) => (i * 37) % 256),
};

async function attempt(device) {
  let upscaler;
  try {
    upscaler = await Upscaler.load(process.argv[2], { device });
    return { pixels: Array.from((await upscaler.run(image)).data) };
  } catch (error) {
    return { code: error.code ?? null, message: error.message, cause: error.cause?.code ?? null };
  } finally {
    upscaler?.dispose();
  }
}

/** Two sizes in turn: a block that is given back is room for one of another size. */
function takeTwice() {
  try {
    const memory = new DeviceMemory();
    memory.give(memory.take(2 ** 20));
    const large = memory.take(3 * 2 ** 20);
    memory.give(large);
    return "taken";
  } catch (error) {
    return error.code ?? error.message;
  }
}

const before = await attempt("cpu");
const memory = process.argv[3] === "memory" ? takeTwice() : null;
const [first, second] = [await attempt("cuda"), await attempt("cuda")];
const after = await attempt("cpu");
const same = JSON.stringify(before) === JSON.stringify(after) && before.pixels !== undefined;
console.log(JSON.stringify({ first, second, memory, same }));

/** The first op of a stream, which finds no scratch yet. In a file and so a process of its own. */
import { expect, test } from "vitest";
import { describeCuda, native } from "../../lib/binding.ts";
import { on, zeros } from "../ops/harness.ts";

const { code, hostMemory } = describeCuda();

test.skipIf(!hostMemory || code !== "OK")(
  "it may need none: gradients of no rows are zeros",
  () => {
    const none = zeros(0);
    const [gweight, gbias] = [zeros(3).fill(7), zeros(3).fill(7)];
    on("cuda-shim", () => native().layerNormGrad(none, zeros(3), none, none, gweight, gbias, 0, 3));
    expect([...gweight, ...gbias]).toEqual([0, 0, 0, 0, 0, 0]);
  },
);

/**
 * The network being quantised beside its full-precision teacher: rounded float tensors, calibrated
 * bounds and rectifier groups.
 */
import { Var } from "../autograd.ts";
import { halfToFloat32, toFloat16 } from "../io/host_tensor.ts";
import { Network } from "../models/network.ts";
import { generator } from "../random.ts";
import { floats, floatsFrom, type Memory } from "../tensor.ts";
import { calibrate, type SearchFor } from "./calibrate.ts";
import { createGate } from "./gate.ts";
import { codedTensors, rectifiedKeys } from "./layout.ts";
import type { Policy } from "./policy.ts";
import type { Recipe } from "./recipes.ts";
import { createRectifiers } from "./rectifier.ts";
import { QuantisedSites } from "./sites.ts";

export interface Student {
  readonly net: Network;
  readonly sites: QuantisedSites;
}

/** How a student's rectifier groups are made; experts = 0 leaves them out. */
export interface GroupShape {
  readonly experts: number;
  readonly rank: number;
}

/** `teacher`'s weights, the float ones rounded to half precision as the packed file stores them. */
export function roundedCopy(teacher: Network, policy: Policy): Network {
  const { architecture, config } = teacher;
  const coded = codedTensors(architecture, config, policy);
  const weights = new Map<string, Var>();
  for (const [name, { data, shape }] of teacher.weights) {
    const values = coded.has(name) ? floatsFrom(data) : floatsFrom(halfToFloat32(toFloat16(data)));
    weights.set(name, new Var(values, shape));
  }
  return new Network(architecture, config, weights);
}

/**
 * A student with calibrated bounds, and nothing else that could be trained; `turn` may put online
 * transforms on it before its sites are observed.
 */
export function calibratedStudent(
  memory: Memory,
  teacher: Network,
  policy: Policy,
  patches: Var,
  seed: number,
  searchFor?: SearchFor,
  turn?: (student: Student) => void,
): Student {
  const net = roundedCopy(teacher, policy);
  const sites = new QuantisedSites(policy, net.architecture);
  turn?.({ net, sites });
  calibrate(memory, net, sites, patches, seed, searchFor);
  return { net, sites };
}

/** A calibrated student with fresh rectifiers, or increments where weights are tuned directly. */
export function createStudent(
  memory: Memory,
  teacher: Network,
  policy: Policy,
  recipe: Recipe,
  shape: GroupShape,
  patches: Var,
  seed: number,
): Student {
  const { net, sites } = calibratedStudent(memory, teacher, policy, patches, seed);
  if (recipe.tuning === "weights") {
    for (const key of rectifiedKeys(net)) {
      const { data, shape } = net.get(`${key}.weight`);
      const rms = Math.sqrt(data.reduce((sum, w) => sum + w * w, 0) / data.length);
      sites.increments.set(key, { value: new Var(floats(data.length), shape, true), rms });
    }
  } else if (shape.experts > 0) {
    rectifiedKeys(net).forEach((key, i) => {
      const [out, cols] = net.get(`${key}.weight`).shape;
      const draw = generator(seed, 0xa11ce, i);
      const group = createRectifiers(
        out,
        cols,
        shape.experts,
        shape.rank,
        recipe.rectifierInit,
        draw,
      );
      sites.rectifiers.set(key, group);
      if (recipe.gate === "dynamic") sites.gates.set(key, createGate(cols, shape.experts, draw));
    });
  }
  return { net, sites };
}

/** The methods that this project knows; a new one is a file beside this and its line here. */
import { expected } from "../errors.ts";
import type { Method } from "../train/method.ts";
import { APHQ_VIT } from "./aphq_vit.ts";
import { CONDIQUANT } from "./condiquant.ts";
import { DBDC_PAC } from "./dbdc_pac.ts";
import { FIMA_Q } from "./fima_q.ts";
import { MAMBAQUANT } from "./mambaquant.ts";
import { PTQ4VM } from "./ptq4vm.ts";
import { QUAMBA } from "./quamba.ts";
import { DOBI, MINMAX, PERCENTILE } from "./ranges_only.ts";
import { SPR2Q } from "./spr2q.ts";
import { TWO_D_QUANT } from "./two_d_quant.ts";

/** Every method, SPR2Q first. */
export const METHODS: readonly Method[] = [
  SPR2Q,
  MINMAX,
  PERCENTILE,
  DOBI,
  TWO_D_QUANT,
  CONDIQUANT,
  DBDC_PAC,
  PTQ4VM,
  QUAMBA,
  MAMBAQUANT,
  FIMA_Q,
  APHQ_VIT,
];

/** The method called `name`; ERR_ARGUMENT lists those that exist. */
export function methodNamed(name: string): Method {
  const found = METHODS.find((method) => method.name === name);
  if (found) return found;
  throw expected("ERR_ARGUMENT", "method", METHODS.map((one) => one.name).join(", "), name);
}

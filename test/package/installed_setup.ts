/** Nothing runs where imports of lib/ do not lead to the package that is meant. */
import { realpathSync } from "node:fs";
import { packageRoot } from "../../lib/binding.ts";

const [meant, found] = [process.env.SPR2Q_PACKAGE, packageRoot()];
if (meant && realpathSync(meant) !== realpathSync(found))
  throw new Error(`tests are meant for ${meant}, but lib/ is that of ${found}`);

/** The reference: every public symbol and every part of it has its words, every link its target. */
import { readFileSync } from "node:fs";

const errors = readFileSync(new URL("../lib/errors.ts", import.meta.url), "utf8");
/** Keys of ERROR_CODES, whose values are their words. */
const codes = [...errors.matchAll(/^ {2}(ERR_\w+):/gm)].map(([, code]) => code);

export default {
  name: "spr2q",
  entryPoints: ["../lib/index.ts"],
  tsconfig: "../tsconfig.json",
  out: "reference",
  readme: "none",
  includeVersion: true,
  disableSources: true,
  excludePrivate: true,
  excludeExternals: true,
  treatWarningsAsErrors: true,
  validation: { notExported: true, invalidLink: true, notDocumented: true },
  requiredToBeDocumented: [
    "Function",
    "Class",
    "Interface",
    "Method",
    "Constructor",
    "Property",
    "Accessor",
    "Variable",
    "TypeAlias",
  ],
  intentionallyNotDocumented: codes.map((code) => `ERROR_CODES.__type.${code}`),
  // What models and methods are made of: of this version only, and described in the sources.
  intentionallyNotExported: [
    "Architecture",
    "DynamicGate",
    "HostData",
    "HostDtype",
    "MethodContext",
    "Network",
    "NetworkConfig",
    "Policy",
    "Prepared",
    "QuantisedSites",
    "RectifierInit",
    "Settings",
    "SharedBounds",
    "SharedCodes",
    "SharedTensor",
    "Sites",
    "Student",
  ],
};

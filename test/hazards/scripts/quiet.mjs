/** The part of common.mjs that does not load the library. */
export const report = (value) => process.stdout.write(`\nRESULT ${JSON.stringify(value)}\n`);
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

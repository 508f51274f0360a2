/** `spr2q bench`: ratios against peers on this machine, held to their floors. */
import { availableParallelism } from "node:os";
import { machineText } from "../../bench/machine.ts";
import { missedRows, tableText } from "../../bench/rows.ts";
import { type BenchResult, runSuites, SUITES, type SuiteName } from "../../bench/run.ts";
import { type CommandContext, defineCommand } from "../args.ts";

/** Fewer samples give no median that is worth quoting. */
const DEFAULT_RUNS = 9;

/** Prints rows and machine; a floor that is missed fails the command. */
export function reportBench(
  ctx: Pick<CommandContext, "out" | "fail" | "result">,
  result: BenchResult,
): void {
  ctx.out(tableText(result.rows));
  ctx.out(machineText(result.machine));
  const missed = missedRows(result.rows);
  if (missed.length) {
    ctx.out(`${missed.length} of ${result.rows.length} rows miss their floor`);
    ctx.fail();
  }
  ctx.result(result);
}

export const command = defineCommand({
  name: "bench",
  summary: "measure speed and memory against peers; exit code 1 where a floor is missed",
  usage: "[--suite kernels|net|peers|train] [--runs N] [--threads N] [--profile]",
  options: [
    {
      name: "suite",
      type: "choice",
      choices: SUITES,
      multiple: true,
      help: "what to measure (default: all); may be given more than once",
    },
    {
      name: "runs",
      type: "integer",
      min: 1,
      max: 1000,
      default: DEFAULT_RUNS,
      help: "samples a side, taken in turn; quote nothing below 9",
    },
    {
      name: "threads",
      type: "integer",
      min: 1,
      max: 256,
      help: "threads of networks, training and peers (default: all cores)",
    },
    {
      name: "model",
      type: "string",
      value: "FILE",
      help: "full-precision model of net, train, peers",
    },
    {
      name: "packed",
      type: "string",
      value: "FILE",
      multiple: true,
      help: "its quantised versions (default: made by calibration)",
    },
    { name: "swinir", type: "string", value: "FILE", help: "SwinIR-light x4 checkpoint of peers" },
    { name: "python", type: "string", value: "FILE", help: "Python that has PyTorch" },
    { name: "profile", type: "boolean", help: "also print the time by step (net) or op (train)" },
  ],
  async run(ctx) {
    const { options, signal, progress } = ctx;
    const names = options.suite.length ? (options.suite as readonly SuiteName[]) : SUITES;
    let done = 0;
    const result = await runSuites(
      SUITES.filter((name) => names.includes(name)),
      {
        runs: options.runs,
        threads: options.threads ?? availableParallelism(),
        signal,
        model: options.model,
        packed: options.packed,
        swinir: options.swinir,
        python: options.python,
        data: process.env.SPR2Q_TEST_DATA || undefined,
        profile: options.profile,
        say: (text) => ctx.out(text),
      },
      ({ name }) => progress.update({ label: "measured", done: ++done, note: name }),
    );
    progress.finish();
    reportBench(ctx, result);
  },
});

#!/usr/bin/env node
/**
 * The `spr2q` program: finds the command, parses its arguments, runs it and turns the outcome into
 * an exit code. Results go to stdout, progress and errors to stderr; with `--json`, stdout is
 * exactly one JSON object, on failure too. Commands are loaded only when they are called.
 */
import { existsSync, realpathSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expected, Spr2qError } from "../errors.ts";
import { type Command, type CommandContext, nearestName, parseCommandLine } from "./args.ts";
import { commandHelp, overviewHelp } from "./help.ts";
import { ProgressLine } from "./progress.ts";
import { packageVersion } from "../binding.ts";

/** One entry of the command table. */
export interface CommandEntry {
  readonly name: string;
  readonly summary: string;
  load(): Promise<{ readonly command: Command }>;
}

/** Every command, in the order of the overview. */
export const COMMANDS: readonly CommandEntry[] = [
  {
    name: "quantize",
    summary: "quantise a network's weights and activations to 8, 4, 2 or 1 bit",
    load: () => import("./commands/quantize.ts"),
  },
  {
    name: "upscale",
    summary: "enlarge an image or a folder of images",
    load: () => import("./commands/upscale.ts"),
  },
  {
    name: "eval",
    summary: "measure PSNR and SSIM on a folder of images",
    load: () => import("./commands/eval.ts"),
  },
  {
    name: "inspect",
    summary: "show what a model file holds: bits, sizes, bounds, routing table",
    load: () => import("./commands/inspect.ts"),
  },
  {
    name: "train",
    summary: "train a full-precision network",
    load: () => import("./commands/train.ts"),
  },
  {
    name: "serve",
    summary: "enlarge images over HTTP, with a page that compares models",
    load: () => import("./commands/serve.ts"),
  },
  {
    name: "demo",
    summary: "quantise the bundled model, upscale a bundled image, write a report",
    load: () => import("./commands/demo.ts"),
  },
  {
    name: "tables",
    summary: "the paper's tables, published figures beside measured ones",
    load: () => import("./commands/tables.ts"),
  },
  {
    name: "bench",
    summary: "measure speed and memory against peers; exit code 1 where a floor is missed",
    load: () => import("./commands/bench.ts"),
  },
  {
    name: "doctor",
    summary: "show what this machine offers and how to mend what is missing",
    load: () => import("./commands/doctor.ts"),
  },
  {
    name: "build",
    summary: "compile the native addon where no prebuilt one fits",
    load: () => import("./commands/build.ts"),
  },
];

/** What the program needs from outside; tests pass their own. */
export interface Io {
  /** Writes to stdout. */
  out(text: string): void;
  /** Writes to stderr. */
  err(text: string): void;
  /** Whether stderr is a terminal, and its width. */
  readonly errIsTty: boolean;
  readonly columns: number;
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal;
  now(): number;
  /** Other commands than {@link COMMANDS}, for tests. */
  readonly commands?: readonly CommandEntry[];
}

/** JSON text of a result: typed arrays as lists, one object, one line end. */
export function jsonText(value: object): string {
  const replacer = (_key: string, entry: unknown) =>
    ArrayBuffer.isView(entry) ? Array.from(entry as unknown as ArrayLike<number>) : entry;
  return `${JSON.stringify(value, replacer, 2)}\n`;
}

function findCommand(commands: readonly CommandEntry[], name: string): CommandEntry {
  const found = commands.find((entry) => entry.name === name);
  if (found !== undefined) return found;
  const near = nearestName(
    name,
    commands.map((entry) => entry.name),
  );
  const fix = near === undefined ? "See spr2q help." : `Did you mean ${near}?`;
  throw expected("ERR_USAGE", "command", commands.map((c) => c.name).join(", "), `"${name}"`, fix);
}

/** Code and message of anything thrown; `stack` only where it is a defect of spr2q itself. */
function describeError(error: unknown): { code: string; message: string; stack?: string } {
  if (error instanceof Spr2qError) return { code: error.code, message: error.message };
  if (!(error instanceof Error)) return { code: "ERR_INTERNAL", message: String(error) };
  if (error.name === "AbortError") return { code: "ERR_ABORTED", message: "stopped" };
  const isSystem = (error as NodeJS.ErrnoException).syscall !== undefined;
  if (isSystem) return { code: "ERR_IO", message: error.message };
  return { code: "ERR_INTERNAL", message: error.message, stack: error.stack };
}

function exitCode(code: string): number {
  return code === "ERR_USAGE" ? 2 : code === "ERR_ABORTED" ? 130 : 1;
}

/** Whether `--json` was asked for, even where the line cannot be parsed. */
function wantsJson(argv: readonly string[]): boolean {
  const end = argv.indexOf("--");
  return (end < 0 ? argv : argv.slice(0, end)).includes("--json");
}

async function runCommand(entry: CommandEntry, argv: readonly string[], io: Io): Promise<number> {
  const { command } = await entry.load();
  const line = parseCommandLine(command, argv);
  if (line.help) {
    const text = commandHelp(command);
    io.out(line.json ? jsonText({ help: text }) : `${text}\n`);
    return 0;
  }
  let code = 0;
  const progress = new ProgressLine({
    write: io.err,
    isTty: io.errIsTty,
    columns: io.columns,
    quiet: line.quiet,
    now: io.now,
  });
  let result: object | undefined;
  const ctx: CommandContext = {
    options: line.options,
    positionals: line.positionals,
    signal: io.signal,
    json: line.json,
    progress,
    out: (text) => {
      if (line.json) return;
      progress.clear();
      io.out(text.endsWith("\n") ? text : `${text}\n`);
    },
    result: (value) => {
      if (result !== undefined) throw new Error(`${command.name} handed over two results`);
      result = value;
    },
    fail: () => {
      code = 1;
    },
  };
  try {
    io.signal.throwIfAborted();
    await command.run(ctx);
    progress.finish();
  } catch (error) {
    progress.clear();
    throw error;
  }
  if (line.json) io.out(jsonText(result ?? {}));
  return code;
}

async function dispatch(argv: readonly string[], io: Io): Promise<number> {
  const commands = io.commands ?? COMMANDS;
  const json = wantsJson(argv);
  const print = (key: string, text: string) =>
    io.out(json ? jsonText({ [key]: text }) : `${text}\n`);
  const words = argv.filter((word) => word !== "--json" && word !== "--quiet" && word !== "-q");
  const [first, second] = words;
  if (first === "--version" || first === "-V" || first === "version") {
    print("version", packageVersion());
  } else if (first === "help" || first === "--help" || first === "-h") {
    const named = second === undefined ? undefined : await findCommand(commands, second).load();
    print("help", named === undefined ? overviewHelp(commands) : commandHelp(named.command));
  } else if (first === undefined) {
    throw expected(
      "ERR_USAGE",
      "command",
      commands.map((c) => c.name).join(", "),
      "none",
      "See spr2q help.",
    );
  } else {
    const at = argv.indexOf(first);
    const entry = findCommand(commands, first);
    return runCommand(entry, [...argv.slice(0, at), ...argv.slice(at + 1)], io);
  }
  return 0;
}

/** Runs one command line (without "node spr2q") and returns its exit code; never throws. */
export async function runMain(argv: readonly string[], io: Io): Promise<number> {
  try {
    return await dispatch(argv, io);
  } catch (error) {
    // An abort may surface as any error of the work that it interrupted.
    const aborted = io.signal.aborted && !(error instanceof Spr2qError);
    const { code, message, stack } = aborted
      ? { code: "ERR_ABORTED", message: "stopped by Ctrl-C", stack: undefined }
      : describeError(error);
    io.err(`spr2q: ${code}: ${message}\n`);
    if (stack !== undefined) io.err(`This is a defect of spr2q; please report it.\n${stack}\n`);
    if (wantsJson(argv)) io.out(jsonText({ error: { code, message } }));
    return exitCode(code);
  }
}

/** Writes to a stream; a reader that went away (EPIPE) is no error, the rest is dropped. */
function quietWriter(stream: NodeJS.WriteStream): (text: string) => void {
  let closed = false;
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
    closed = true;
  });
  return (text) => {
    if (!closed) stream.write(text);
  };
}

/** The program: Ctrl-C (or SIGTERM) aborts the work, a second one leaves at once. */
async function program(): Promise<void> {
  const controller = new AbortController();
  const err = quietWriter(process.stderr);
  const stop = () => {
    if (controller.signal.aborted) process.exit(130);
    err("\nspr2q: stopping; Ctrl-C once more leaves at once\n");
    controller.abort(new Spr2qError("ERR_ABORTED", "stopped by Ctrl-C"));
  };
  process.on("SIGINT", stop);
  process.on("SIGTERM", stop);
  process.exitCode = await runMain(process.argv.slice(2), {
    out: quietWriter(process.stdout),
    err,
    errIsTty: process.stderr.isTTY === true,
    columns: process.stderr.columns ?? 80,
    signal: controller.signal,
    now: () => performance.now(),
  });
  process.off("SIGINT", stop);
  process.off("SIGTERM", stop);
}

/** Whether this file is the program, also through the link that npm makes, or only imported. */
function isProgram(): boolean {
  const started = process.argv[1];
  if (started === undefined || !existsSync(started)) return false;
  return realpathSync(started) === realpathSync(fileURLToPath(import.meta.url));
}

if (isProgram()) await program();

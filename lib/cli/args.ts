/**
 * Command line arguments by a table of options: each command declares name, type, range and help
 * once, and parsing, checking, `--help` and the TypeScript types of the values follow from it.
 */
import { parseArgs } from "node:util";
import { expected, type Spr2qError } from "../errors.ts";
import type { Progress } from "./progress.ts";

/** One option of a command. */
export interface OptionSpec {
  /** Long name without dashes, for example "model". */
  readonly name: string;
  readonly type: "string" | "integer" | "number" | "size" | "boolean" | "choice";
  /** One sentence or phrase, shown by `--help`. */
  readonly help: string;
  /** One letter for the short form. */
  readonly short?: string;
  /** Value where the option is absent; shown by `--help`. Left out: undefined (booleans: false). */
  readonly default?: string | number | boolean;
  /** The command cannot run without it. */
  readonly required?: boolean;
  /** Least and greatest value of an integer or number, both allowed. */
  readonly min?: number;
  readonly max?: number;
  /** The values of a choice; a number among them is returned as a number. */
  readonly choices?: readonly (string | number)[];
  /** Name of the value in `--help`, for example "DIR". */
  readonly value?: string;
  /** May be given more than once; the value is then a list, empty where the option is absent. */
  readonly multiple?: boolean;
}

type OneValue<S extends OptionSpec> = S["type"] extends "boolean"
  ? boolean
  : S["type"] extends "integer" | "number" | "size"
    ? number
    : S["type"] extends "choice"
      ? S["choices"] extends readonly (infer C)[]
        ? C
        : string
      : string;
type HasValue = { default: unknown } | { required: true } | { type: "boolean" };
type ValueOf<S extends OptionSpec> = S extends { multiple: true }
  ? readonly OneValue<S>[]
  : S extends HasValue
    ? OneValue<S>
    : OneValue<S> | undefined;

/** Parsed values by option name, typed from the option table. */
export type OptionValues<T extends readonly OptionSpec[]> = {
  readonly [S in T[number] as S["name"]]: ValueOf<S>;
};

/** What a command's `run` gets. */
export interface CommandContext<O = Readonly<Record<string, unknown>>> {
  readonly options: O;
  readonly positionals: readonly string[];
  /** Aborts at the first Ctrl-C. */
  readonly signal: AbortSignal;
  /** True under `--json`: `out` is silent then, only the result is printed. */
  readonly json: boolean;
  /** Prints one line (or several) of the result for people, on stdout. */
  out(text: string): void;
  /** The status line on stderr. */
  readonly progress: Progress;
  /** Hands over the one object that `--json` prints; at most once. */
  result(value: object): void;
  /** The command ran to its end and reports a failure (exit code 1), for example a missed floor. */
  fail(): void;
}

/** One command; made by {@link defineCommand}. */
export interface Command {
  readonly name: string;
  /** Half a line for the overview. */
  readonly summary: string;
  /** What follows "spr2q NAME" in the usage line. */
  readonly usage: string;
  readonly options: readonly OptionSpec[];
  /** How many words may follow, and what they are; none where left out. */
  readonly positionals?: { readonly min: number; readonly max: number; readonly help: string };
  run(ctx: CommandContext): Promise<void>;
}

/** Options that every command has. */
export const COMMON_OPTIONS: readonly OptionSpec[] = [
  { name: "json", type: "boolean", help: "print one JSON object on stdout, also on failure" },
  { name: "quiet", short: "q", type: "boolean", help: "no progress on stderr" },
  { name: "help", short: "h", type: "boolean", help: "show this text" },
];

/** Gives `run` the types that follow from the option table. */
export function defineCommand<const T extends readonly OptionSpec[]>(
  command: Omit<Command, "options" | "run"> & {
    readonly options: T;
    run(ctx: CommandContext<OptionValues<T>>): Promise<void>;
  },
): Command {
  return command as unknown as Command;
}

/** The entry of `known` that `word` most likely meant, if one is close (edit distance). */
export function nearestName(word: string, known: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(1, Math.floor(word.length / 3)) + 1;
  for (const name of known) {
    const isStart = word.length >= 3 && name.startsWith(word);
    const distance = isStart ? 1 : editDistance(word, name);
    if (distance < bestDistance) [best, bestDistance] = [name, distance];
  }
  return best;
}

/** Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`. */
function editDistance(a: string, b: string): number {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = rows[i - 1][j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      row[j] = Math.min(change, rows[i - 1][j] + 1, row[j - 1] + 1);
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (swapped) row[j] = Math.min(row[j], rows[i - 2][j - 2] + 1);
    }
    rows.push(row);
  }
  return rows[a.length][b.length];
}

function usage(what: string, wanted: string, got: string, fix = ""): Spr2qError {
  return expected("ERR_USAGE", what, wanted, got, fix);
}

/** "an integer from 1 to 8", "a number of at least 0". */
export function describeRange(spec: OptionSpec): string {
  const noun = spec.type === "integer" ? "an integer" : "a number";
  if (spec.min !== undefined && spec.max !== undefined)
    return `${noun} from ${spec.min} to ${spec.max}`;
  if (spec.min !== undefined) return `${noun} of at least ${spec.min}`;
  return spec.max === undefined ? noun : `${noun} of at most ${spec.max}`;
}

/** Letters of the units of bytes, by their powers from 1 on. */
const UNITS = "KMGT";

/**
 * Bytes from "4096", "512M", "512MiB" (powers of 1024) or "500MB" (powers of 1000); fractions of a
 * unit may be given. Null for anything else, and for less than a byte.
 */
export function parseSize(text: string): number | null {
  const match = /^(\d+)(?:(\.\d+)?([KMGT])(i?B)?)?$/i.exec(text.trim());
  if (!match) return null;
  const [, whole, fraction = "", unit, suffix = ""] = match;
  const base = suffix.toUpperCase() === "B" ? 1000 : 1024;
  const power = unit === undefined ? 0 : UNITS.indexOf(unit.toUpperCase()) + 1;
  const bytes = Math.floor(Number(whole + fraction) * base ** power);
  return bytes >= 1 && Number.isSafeInteger(bytes) ? bytes : null;
}

function convert(spec: OptionSpec, text: string): string | number {
  const what = `--${spec.name}`;
  if (spec.type === "choice") {
    const choices = spec.choices ?? [];
    const found = choices.find((choice) => String(choice) === text);
    if (found !== undefined) return found;
    const near = nearestName(text, choices.map(String));
    const fix = near === undefined ? "" : `Did you mean ${near}?`;
    throw usage(what, `one of ${choices.join(", ")}`, `"${text}"`, fix);
  }
  if (spec.type === "string") {
    if (text === "") throw usage(what, "a value", "an empty text");
    return text;
  }
  if (spec.type === "size") {
    const size = parseSize(text);
    if (size === null) throw usage(what, "bytes above 0, as 1500000, 512M or 1.5GiB", `"${text}"`);
    return size;
  }
  const value = text.trim() === "" ? Number.NaN : Number(text);
  const whole = spec.type === "number" ? Number.isFinite(value) : Number.isSafeInteger(value);
  const inside = value >= (spec.min ?? -Infinity) && value <= (spec.max ?? Infinity);
  if (!whole || !inside) throw usage(what, describeRange(spec), `"${text}"`);
  return value;
}

/** What {@link parseCommandLine} returns. */
export interface ParsedLine {
  readonly options: Readonly<Record<string, unknown>>;
  readonly positionals: readonly string[];
  readonly json: boolean;
  readonly quiet: boolean;
  readonly help: boolean;
}

/** The value that follows an option; a text that starts with a dash is no value, a number is. */
function givenValue(spec: OptionSpec, value: string | undefined, inline: boolean): string {
  const looksLikeOption = !inline && value !== undefined && /^-[^\d.]/.test(value);
  if (value === undefined || looksLikeOption) {
    const got = looksLikeOption ? `the option ${value}` : "nothing";
    const fix = looksLikeOption ? `Write --${spec.name}=${value} if that is the value.` : "";
    throw usage(`--${spec.name}`, `a value (${placeholder(spec)})`, got, fix);
  }
  return value;
}

function checkPositionals(command: Command, positionals: readonly string[]): void {
  const { min, max, help } = command.positionals ?? { min: 0, max: 0, help: "" };
  if (positionals.length >= min && positionals.length <= max) return;
  const extra = positionals[max];
  const wanted =
    max === 0 ? "no further words" : min === max ? `${min} of them` : `${min} to ${max}`;
  const got = extra === undefined ? String(positionals.length) : `"${extra}" as well`;
  const what = max === 0 ? "arguments" : `arguments (${help})`;
  throw usage(what, wanted, got, `See spr2q help ${command.name}.`);
}

/** Fills in defaults; a missing required option is an error. */
function complete(command: Command, values: Record<string, unknown>): void {
  for (const spec of command.options) {
    if (values[spec.name] !== undefined) continue;
    if (spec.required) {
      const see = `${spec.help}. See spr2q help ${command.name}.`;
      throw usage(
        `--${spec.name}`,
        `a value (${placeholder(spec)})`,
        "nothing",
        `It is required: ${see}`,
      );
    }
    values[spec.name] = spec.multiple
      ? []
      : (spec.default ?? (spec.type === "boolean" ? false : undefined));
  }
}

/**
 * Parses and checks the words after the command's name. With `--help` nothing is checked for
 * presence. @throws ERR_USAGE, naming the option, what it takes and the nearest known name.
 */
export function parseCommandLine(command: Command, argv: readonly string[]): ParsedLine {
  const specs = [...command.options, ...COMMON_OPTIONS];
  const config = Object.fromEntries(
    specs.map((spec) => [
      spec.name,
      {
        type: spec.type === "boolean" ? ("boolean" as const) : ("string" as const),
        ...(spec.short === undefined ? {} : { short: spec.short }),
      },
    ]),
  );
  const { tokens } = parseArgs({
    args: [...argv],
    options: config,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const values: Record<string, unknown> = {};
  const positionals: string[] = [];
  for (const token of tokens) {
    if (token.kind === "positional") positionals.push(token.value);
    if (token.kind !== "option") continue;
    const spec = specs.find((entry) => entry.name === token.name);
    if (spec === undefined) {
      const near = nearestName(
        token.name,
        specs.map((entry) => entry.name),
      );
      const fix =
        near === undefined ? `See spr2q help ${command.name}.` : `Did you mean --${near}?`;
      throw usage(`options of ${command.name}`, "a known option", token.rawName, fix);
    }
    if (spec.type === "boolean") {
      if (token.value !== undefined) throw usage(`--${spec.name}`, "no value", `"${token.value}"`);
      values[spec.name] = true;
      continue;
    }
    const value = convert(spec, givenValue(spec, token.value, token.inlineValue === true));
    values[spec.name] = spec.multiple ? [...((values[spec.name] as []) ?? []), value] : value;
  }
  const [json, quiet, help] = ["json", "quiet", "help"].map((name) => values[name] === true);
  if (!help) {
    checkPositionals(command, positionals);
    complete(command, values);
  }
  return { options: values, positionals, json, quiet, help };
}

/** Name of an option's value in help texts: DIR, N, 8|4|2|1. */
export function placeholder(spec: OptionSpec): string {
  if (spec.value !== undefined) return spec.value;
  if (spec.type === "choice") return (spec.choices ?? []).join("|");
  if (spec.type === "size") return "SIZE";
  return spec.type === "integer" ? "N" : spec.type === "number" ? "X" : "TEXT";
}

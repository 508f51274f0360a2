/** Help texts: one command's options, aligned and wrapped, and the overview of all commands. */
import { COMMON_OPTIONS, type Command, type OptionSpec, placeholder } from "./args.ts";

/** Column where explanations start, unless the option itself is longer. */
const HELP_COLUMN = 32;
/** Lines are wrapped at this column. */
const LINE_WIDTH = 96;

function wrap(text: string, indent: number): string {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && indent + line.length + 1 + word.length > LINE_WIDTH) {
      lines.push(line);
      line = word;
    } else {
      line = line === "" ? word : `${line} ${word}`;
    }
  }
  lines.push(line);
  return lines.join(`\n${" ".repeat(indent)}`);
}

/** The bracket behind an explanation: required, range, default, repeatable. */
function remarks(spec: OptionSpec): string {
  const parts: string[] = [];
  if (spec.required) parts.push("required");
  if (spec.min !== undefined && spec.max !== undefined) parts.push(`${spec.min} to ${spec.max}`);
  else if (spec.min !== undefined) parts.push(`at least ${spec.min}`);
  else if (spec.max !== undefined) parts.push(`at most ${spec.max}`);
  if (spec.default !== undefined && spec.default !== false) parts.push(`default ${spec.default}`);
  if (spec.multiple) parts.push("may be repeated");
  return parts.length === 0 ? "" : ` (${parts.join("; ")})`;
}

function optionLine(spec: OptionSpec): string {
  const short = spec.short === undefined ? "    " : `-${spec.short}, `;
  const value = spec.type === "boolean" ? "" : ` ${placeholder(spec)}`;
  const head = `  ${short}--${spec.name}${value}`;
  const gap = head.length + 2 > HELP_COLUMN ? `\n${" ".repeat(HELP_COLUMN)}` : "";
  const padded = gap === "" ? head.padEnd(HELP_COLUMN) : head + gap;
  return padded + wrap(spec.help + remarks(spec), HELP_COLUMN);
}

/** `spr2q help NAME` and `spr2q NAME --help`. */
export function commandHelp(command: Command): string {
  const parts = [`spr2q ${command.name}: ${command.summary}`, ""];
  parts.push(`Usage: spr2q ${command.name} ${wrap(command.usage, 9)}`.trimEnd());
  if (command.positionals !== undefined && command.positionals.max > 0) {
    parts.push("", `Arguments: ${wrap(command.positionals.help, 11)}`);
  }
  parts.push("", "Options:");
  parts.push(...[...command.options, ...COMMON_OPTIONS].map(optionLine));
  return parts.join("\n");
}

/** `spr2q help`: every command with its summary. */
export function overviewHelp(commands: readonly { name: string; summary: string }[]): string {
  const width = Math.max(...commands.map(({ name }) => name.length)) + 3;
  return [
    "spr2q: low-bit image super-resolution",
    "",
    "Usage: spr2q COMMAND [options]",
    "",
    "Commands:",
    ...commands.map(({ name, summary }) => `  ${name.padEnd(width)}${wrap(summary, width + 2)}`),
    "",
    "spr2q help COMMAND lists a command's options; spr2q --version prints the version.",
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C.",
  ].join("\n");
}

import { describe, expect, expectTypeOf, test } from "vitest";
import { defineCommand, nearestName, parseCommandLine, parseSize } from "../../lib/cli/args.ts";
import { commandHelp } from "../../lib/cli/help.ts";

const command = defineCommand({
  name: "shrink",
  summary: "make a model small",
  usage: "--model FILE [options] IN...",
  options: [
    {
      name: "model",
      short: "m",
      type: "string",
      value: "FILE",
      required: true,
      help: "model to read",
    },
    { name: "bits", type: "choice", choices: [4, 2, 1], default: 4, help: "bits per weight" },
    {
      name: "routing",
      type: "choice",
      choices: ["sampled", "argmax"],
      default: "sampled",
      help: "how tokens find their class",
    },
    { name: "iterations", type: "integer", min: 1, max: 1000, default: 12, help: "steps" },
    { name: "rate", type: "number", min: 0, help: "learning rate" },
    { name: "room", type: "size", help: "memory" },
    { name: "resume", type: "boolean", help: "go on from the last checkpoint" },
    { name: "extra", type: "string", multiple: true, help: "more models" },
  ],
  positionals: { min: 1, max: 2, help: "images to read" },
  async run(ctx) {
    expectTypeOf(ctx.options.model).toEqualTypeOf<string>();
    expectTypeOf(ctx.options.bits).toEqualTypeOf<4 | 2 | 1>();
    expectTypeOf(ctx.options.rate).toEqualTypeOf<number | undefined>();
    expectTypeOf(ctx.options.room).toEqualTypeOf<number | undefined>();
    expectTypeOf(ctx.options.resume).toEqualTypeOf<boolean>();
    expectTypeOf(ctx.options.extra).toEqualTypeOf<readonly string[]>();
  },
});
const parse = (...argv: string[]) => parseCommandLine(command, argv);
const usage = (text: string) =>
  expect.objectContaining({ code: "ERR_USAGE", message: expect.stringContaining(text) });

describe("values", () => {
  test("defaults are filled in, and types are those of the table", () => {
    expect(parse("a.png", "--model", "m").options).toEqual({
      model: "m",
      bits: 4,
      routing: "sampled",
      iterations: 12,
      rate: undefined,
      room: undefined,
      resume: false,
      extra: [],
    });
  });

  test("sizes are bytes, or have a unit of 1024 (M, MiB) or of 1000 (MB)", () => {
    for (const [text, bytes] of [
      ["1", 1],
      ["4096", 4096],
      ["3k", 3072],
      ["512M", 2 ** 29],
      ["512MiB", 2 ** 29],
      ["1.5GiB", 1.5 * 2 ** 30],
      ["500mb", 5e8],
      ["2T", 2 ** 41],
    ] as const) {
      expect(parseSize(text), text).toBe(bytes);
    }
    const bad = [
      "",
      "0",
      "0M",
      "0.0001K",
      "-1",
      "1.5",
      "1e9",
      "M",
      "1X",
      "1 M 2",
      "1MiBB",
      "9999999T",
    ];
    for (const text of bad) expect(parseSize(text), text).toBeNull();
    expect(parse("a.png", "-m", "x", "--room", "2M").options.room).toBe(2 ** 21);
    expect(() => parse("a.png", "-m", "x", "--room", "much")).toThrow(
      usage("--room: expected bytes"),
    );
  });

  test("options and words mix in any order, with = and short forms", () => {
    const { options, positionals, json, quiet } = parse(
      "a.png",
      "-m",
      "x",
      "--bits=2",
      "--resume",
      "b.png",
      "--rate",
      "1e-2",
      "--json",
      "-q",
    );
    expect(options).toMatchObject({ model: "x", bits: 2, resume: true, rate: 0.01 });
    expect([positionals, json, quiet]).toEqual([["a.png", "b.png"], true, true]);
  });

  test("a repeatable option collects its values, another takes the last", () => {
    const line = parse("i", "-m", "a", "-m", "b", "--extra", "x", "--extra", "y");
    expect(line.options).toMatchObject({ model: "b", extra: ["x", "y"] });
  });

  test("after -- a word with a dash is an argument", () => {
    expect(parse("-m", "a", "--", "--bits").positionals).toEqual(["--bits"]);
  });

  test("a single dash and a negative number are values", () => {
    expect(parse("-", "-m", "-").options.model).toBe("-");
    expect(() => parse("i", "-m", "a", "--rate", "-1")).toThrow(
      usage('--rate: expected a number of at least 0, got "-1"'),
    );
  });
});

describe("mistakes", () => {
  test("an unknown option names the nearest known one", () => {
    expect(() => parse("i", "-m", "a", "--iteratons", "3")).toThrow(
      usage("Did you mean --iterations?"),
    );
    expect(() => parse("i", "-m", "a", "--iter", "3")).toThrow(usage("Did you mean --iterations?"));
    expect(() => parse("i", "-m", "a", "--zzzzzz")).toThrow(usage("See spr2q help shrink"));
    expect(() => parse("i", "-m", "a", "-x")).toThrow(usage("got -x"));
  });

  test("a missing required option says what it is", () => {
    expect(() => parse("i")).toThrow(usage("--model: expected a value (FILE), got nothing"));
  });

  test.each(["0", "1001", "2.5", "ten", "", "1e999"])(
    "an integer of %j says the allowed range",
    (text) => {
      expect(() => parse("i", "-m", "a", `--iterations=${text}`)).toThrow(
        usage("an integer from 1 to 1000"),
      );
    },
  );

  test("a wrong choice lists the choices and the nearest", () => {
    expect(() => parse("i", "-m", "a", "--bits", "3")).toThrow(usage('one of 4, 2, 1, got "3"'));
    expect(() => parse("i", "-m", "a", "--routing", "sample")).toThrow(
      usage("Did you mean sampled?"),
    );
  });

  test("a value that is missing or is the next option is noticed", () => {
    expect(() => parse("i", "--model")).toThrow(usage("got nothing"));
    expect(() => parse("i", "--model", "--resume")).toThrow(usage("got the option --resume"));
    expect(() => parse("i", "-m", "a", "--resume=yes")).toThrow(
      usage('--resume: expected no value, got "yes"'),
    );
  });

  test("too few and too many words are refused", () => {
    expect(() => parse("-m", "a")).toThrow(usage("images to read"));
    expect(() => parse("a", "b", "c", "-m", "a")).toThrow(usage('got "c" as well'));
  });

  test("names of Object.prototype are unknown options", () => {
    expect(() => parse("i", "-m", "a", "--constructor")).toThrow(usage("a known option"));
    expect(() => parse("i", "-m", "a", "--__proto__", "x")).toThrow(usage("a known option"));
  });
});

describe("help", () => {
  test("--help is recognised whatever else is missing", () => {
    expect(parse("--help").help).toBe(true);
    expect(parse("-h").help).toBe(true);
  });

  test("the text lists every option with range and default, aligned and within 96 columns", () => {
    const text = commandHelp(command);
    expect(text).toContain("Usage: spr2q shrink --model FILE [options] IN...");
    expect(text).toContain("--bits 4|2|1");
    expect(text).toContain("steps (1 to 1000; default 12)");
    expect(text).toContain("-m, --model FILE");
    const columns = command.options.map(({ help }) => {
      const line = text.split("\n").find((l) => l.includes(help)) ?? "";
      return line.indexOf(help);
    });
    expect(new Set(columns)).toEqual(new Set([32]));
    for (const line of text.split("\n")) expect(line.length).toBeLessThanOrEqual(96);
  });
});

test("the nearest name is close or a beginning, else there is none", () => {
  const names = ["quantize", "upscale", "eval"];
  expect(nearestName("quantise", names)).toBe("quantize");
  expect(nearestName("upsclae", names)).toBe("upscale");
  expect(nearestName("quant", names)).toBe("quantize");
  expect(nearestName("evla", names)).toBe("eval");
  expect(nearestName("dance", names)).toBeUndefined();
});

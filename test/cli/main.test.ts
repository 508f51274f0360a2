import { describe, expect, test } from "vitest";
import { type CommandContext, defineCommand } from "../../lib/cli/args.ts";
import { COMMANDS, type CommandEntry, runMain } from "../../lib/cli/main.ts";
import { packageVersion } from "../../lib/binding.ts";
import { Spr2qError } from "../../lib/errors.ts";

/** Runs one command line on a command "work" whose body is `body`. */
async function run(argv: string[], body: (ctx: CommandContext) => unknown = () => {}, io = {}) {
  const command = defineCommand({
    name: "work",
    summary: "works",
    usage: "[IN]",
    options: [{ name: "count", type: "integer", min: 1, default: 3, help: "how many" }],
    positionals: { min: 0, max: 1, help: "IN" },
    run: async (ctx) => void (await body(ctx as unknown as CommandContext)),
  });
  const load = async () => ({ command });
  const commands: CommandEntry[] = [
    { name: "work", summary: "works", load },
    {
      name: "broken",
      summary: "cannot load",
      load: () => Promise.reject(new Spr2qError("ERR_NO_BINARY", "no addon")),
    },
  ];
  let out = "";
  let err = "";
  const code = await runMain(argv, {
    out: (text) => {
      out += text;
    },
    err: (text) => {
      err += text;
    },
    errIsTty: false,
    columns: 80,
    signal: new AbortController().signal,
    now: () => 0,
    commands,
    ...io,
  });
  return { code, out, err };
}

describe("results", () => {
  test("a command gets its options and prints on stdout, exit code 0", async () => {
    const done = await run(["work", "a.png", "--count", "5"], (ctx) =>
      ctx.out(`${ctx.positionals[0]} ${ctx.options.count}`),
    );
    expect(done).toEqual({ code: 0, out: "a.png 5\n", err: "" });
  });

  test("with --json stdout is one object, wherever the flag stands", async () => {
    const body = (ctx: CommandContext) => {
      ctx.out("for people");
      ctx.result({ psnr: 31.5, weights: Float32Array.of(0.5, 1) });
    };
    for (const argv of [
      ["work", "--json"],
      ["--json", "work"],
    ]) {
      const { code, out, err } = await run(argv, body);
      expect([code, JSON.parse(out), err]).toEqual([0, { psnr: 31.5, weights: [0.5, 1] }, ""]);
    }
  });

  test("without --json the result object is not printed", async () => {
    expect((await run(["work"], (ctx) => ctx.result({ a: 1 }))).out).toBe("");
  });

  test("progress goes to stderr, and --quiet silences it", async () => {
    const body = (ctx: CommandContext) => ctx.progress.update({ label: "step", done: 1, total: 2 });
    expect((await run(["work"], body)).err).toBe("step 1/2 (50 %)\n");
    expect((await run(["work", "-q"], body)).err).toBe("");
    expect((await run(["work"], body)).out).toBe("");
  });

  test("on a terminal a printed line first takes the status line away", async () => {
    let stream = "";
    const write = (text: string) => {
      stream += text;
    };
    const body = (ctx: CommandContext) => {
      ctx.progress.update({ label: "step", done: 1, total: 2 });
      ctx.out("hello");
    };
    await run(["work"], body, { errIsTty: true, out: write, err: write });
    expect(stream).toContain("step 1/2 (50 %)\r\x1b[Khello\n");
  });
});

describe("failures", () => {
  test.each([
    ["a coded failure", new Spr2qError("ERR_IMAGE", "bad picture"), 1, "ERR_IMAGE"],
    ["wrong usage", new Spr2qError("ERR_USAGE", "no such"), 2, "ERR_USAGE"],
    ["an abort", new Spr2qError("ERR_ABORTED", "stopped"), 130, "ERR_ABORTED"],
    ["an AbortError of Node", new DOMException("x", "AbortError"), 130, "ERR_ABORTED"],
    [
      "a failed system call",
      Object.assign(new Error("ENOSPC: full"), { syscall: "write" }),
      1,
      "ERR_IO",
    ],
  ])(
    "%s sets the exit code, the message goes to stderr, no stack",
    async (_, error, code, name) => {
      const done = await run(["work"], () => Promise.reject(error));
      expect([done.code, done.out]).toEqual([code, ""]);
      expect(done.err).toMatch(new RegExp(`^spr2q: ${name}: .*\\n$`));
    },
  );

  test("a defect shows its stack and asks for a report", async () => {
    const done = await run(["work"], () => Promise.reject(new TypeError("x is undefined")));
    expect(done.code).toBe(1);
    expect(done.err).toMatch(/ERR_INTERNAL: x is undefined[\s\S]*report it[\s\S]*at /);
  });

  test("with --json a failure is one object with code and message", async () => {
    const fail = () => Promise.reject(new Spr2qError("ERR_DATA", "no images"));
    const done = await run(["work", "--json"], fail);
    expect(JSON.parse(done.out)).toEqual({ error: { code: "ERR_DATA", message: "no images" } });
    const unknown = await run(["wrok", "--json"]);
    expect([unknown.code, JSON.parse(unknown.out).error.code]).toEqual([2, "ERR_USAGE"]);
    const option = await run(["work", "--cuont", "1", "--json"]);
    expect([option.code, JSON.parse(option.out).error.code]).toEqual([2, "ERR_USAGE"]);
  });

  test("a result that was handed over before the failure is not printed", async () => {
    const done = await run(["work", "--json"], (ctx) => {
      ctx.result({ ok: true });
      throw new Spr2qError("ERR_IO", "disk full");
    });
    expect(Object.keys(JSON.parse(done.out))).toEqual(["error"]);
  });

  test("a command that cannot be loaded says why", async () => {
    expect(await run(["broken"])).toMatchObject({
      code: 1,
      err: "spr2q: ERR_NO_BINARY: no addon\n",
    });
  });

  test("an abort while working ends with 130 whatever the work throws", async () => {
    const controller = new AbortController();
    const body = (ctx: CommandContext) => {
      controller.abort();
      expect(ctx.signal.aborted).toBe(true);
      throw new Error("half done");
    };
    expect((await run(["work"], body, { signal: controller.signal })).code).toBe(130);
  });
});

describe("help and version", () => {
  test("--version prints the version of package.json", async () => {
    expect(packageVersion()).toMatch(/^\d+\.\d+\.\d+/);
    expect(await run(["--version"])).toEqual({ code: 0, out: `${packageVersion()}\n`, err: "" });
    expect(JSON.parse((await run(["--version", "--json"])).out)).toEqual({
      version: packageVersion(),
    });
  });

  test("help lists the commands, help CMD and CMD --help the options", async () => {
    expect((await run(["help"])).out).toMatch(/work +works\n/);
    const { code, out } = await run(["help", "work"]);
    expect(code).toBe(0);
    expect(out).toContain("--count N");
    expect((await run(["work", "--help"])).out).toBe(out);
  });

  test("an unknown command suggests the nearest, no command is wrong usage", async () => {
    const typo = await run(["wrok"]);
    expect([typo.code, typo.out]).toEqual([2, ""]);
    expect(typo.err).toContain("Did you mean work?");
    expect((await run([])).code).toBe(2);
    expect((await run(["help", "wrok"])).code).toBe(2);
  });

  test("the table's own overview names every command once", async () => {
    const { out } = await run(["help"], undefined, { commands: COMMANDS });
    for (const { name, summary } of COMMANDS) {
      const lines = out.split("\n").filter((line) => line.startsWith(`  ${name} `));
      expect(lines.length).toBe(1);
      expect(lines[0]).toContain(summary);
    }
  });
});

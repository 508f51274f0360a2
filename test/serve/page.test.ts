/**
 * The page in a real browser (headless Chromium, driven by playwright-core, which brings none): as a
 * person with a mouse, with a keyboard, on a narrow screen and in the dark sees it.
 */
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Browser, chromium, type Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { encodePng } from "../../lib/io/png.ts";
import { encodeWithSharp } from "../../lib/io/sharp.ts";
import type { ServeOptions } from "../../lib/serve/server.ts";
import { picture } from "../cli/tiny_model.ts";
import { hasSharp, temporaryFolder } from "../io/helpers.ts";
import { health, serve, until } from "./helpers.ts";

const PLACES = ["chromium", "chromium-browser", "google-chrome"].map((name) => `/usr/bin/${name}`);
const executablePath = [process.env.SPR2Q_CHROMIUM ?? "", ...PLACES].find((path) =>
  existsSync(path),
);
if (!executablePath)
  console.log("skipped: Chromium is not installed (set SPR2Q_CHROMIUM to its path)");

/** One small network at full precision, 4, 2 and 1 bit. */
const PRECISIONS = ["", "-w4", "-w2", "-w1"].map((precision) =>
  join(import.meta.dirname, "..", "fixtures", `tiny-x2${precision}.safetensors`),
);

describe.skipIf(!executablePath)("the page", () => {
  let browser: Browser;
  beforeAll(async () => {
    const args = ["--no-sandbox", "--disable-dev-shm-usage"];
    browser = await chromium.launch({ executablePath, args });
  }, 60_000);
  afterAll(() => browser?.close());

  /** The page of a server of its own; any request elsewhere and any error in it fails the test. */
  async function open(look: object = {}, options: ServeOptions = { models: PRECISIONS }) {
    const { url, log } = await serve(options);
    const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...look });
    context.setDefaultTimeout(90_000); // machines that do much else are slow, not wrong
    const page = await context.newPage();
    const faults: string[] = [];
    page.on("request", (request) => {
      const asked = request.url();
      if (!asked.startsWith(`${url}/`) && !asked.startsWith(`blob:${url}`)) faults.push(asked);
    });
    page.on("pageerror", (error) => faults.push(String(error)));
    onTestFinished(async () => {
      await context.close();
      expect(faults).toEqual([]);
    });
    await page.goto(url);
    await page.locator("#curl", { hasText: url }).waitFor();
    return { page, url, log };
  }

  const finished = (page: Page): Promise<void> =>
    page.locator("#waiting").waitFor({ state: "hidden" });
  const cut = (page: Page): Promise<string> =>
    page.locator("#stage").evaluate((stage) => getComputedStyle(stage).getPropertyValue("--cut"));
  const column = (page: Page, n: number): Promise<string[]> =>
    page.locator(`#rows tr > :nth-child(${n})`).allInnerTexts();

  async function takeSample(page: Page): Promise<void> {
    await page.getByRole("button", { name: "Harbour" }).click();
    await page.locator("#result").waitFor();
    await finished(page);
  }

  test("a sample: bicubic, full precision, 4, 2 and 1 bit, each with time, quality and sizes", async () => {
    const { page } = await open();
    await takeSample(page);
    expect(await column(page, 1)).toEqual(["Bicubic", "Full precision", "4 bit", "2 bit", "1 bit"]);
    for (const time of await column(page, 2)) expect(time).toMatch(/^[\d.]+ m?s$/);
    const quality = (await column(page, 4)).map((text) => Number(/^([\d.]+) dB$/.exec(text)?.[1]));
    expect(quality.every((value) => value > 20 && value < 60)).toBe(true);
    expect(Math.max(...quality)).toBe(quality[1]);
    expect(Math.min(...quality)).toBe(quality[0]);
    const sizes = await column(page, 5);
    expect(sizes[0]).toBe("none");
    expect(sizes.slice(1).every((text) => /^\d+ KiB$/.test(text))).toBe(true);
    expect(await page.locator("#title").innerText()).toBe("harbour, 96 × 96 to 192 × 192 pixels");
    for (const side of ["left", "right"]) {
      const natural = page
        .locator(`#${side}-image`)
        .evaluate((i) => (i as HTMLImageElement).naturalWidth);
      expect(await natural).toBe(192);
    }
    const [download] = await Promise.all([
      page.waitForEvent("download"),
      page.getByRole("link", { name: "Save the result of 2 bit" }).click(),
    ]);
    expect(download.suggestedFilename()).toBe("harbour-x2-tiny-x2-w2.png");
  });

  test("a mouse drags the divider, and what lies left of it is the left version", async () => {
    const { page } = await open();
    await takeSample(page);
    await page.locator("#left-choice").getByText("1 bit").click();
    const stage = (await page.locator("#stage").boundingBox())!;
    const at = (share: number) =>
      [stage.x + share * stage.width, stage.y + stage.height / 2] as const;
    await page.mouse.move(...at(0.5));
    await page.mouse.down();
    await page.mouse.move(...at(0.25), { steps: 4 });
    await page.mouse.up();
    expect(Math.abs(Number.parseFloat(await cut(page)) - 25)).toBeLessThan(2);
    const edge = await page.locator("#left-image").evaluate((image) => {
      const right = /inset\(0px calc\(100% - ([\d.]+)px\)/.exec(getComputedStyle(image).clipPath);
      return Number(right?.[1]) / image.clientWidth;
    });
    expect(Math.abs(edge - 0.25)).toBeLessThan(0.02);
    expect(await page.locator("#left-tag").innerText()).toBe("1 bit");
  });

  test("by keyboard alone: a sample, the divider, both versions", async () => {
    const { page } = await open();
    const focusOn = async (selector: string): Promise<void> => {
      for (let i = 0; i < 40; i++) {
        if (await page.evaluate((s) => document.activeElement?.matches(s), selector)) return;
        await page.keyboard.press("Tab");
      }
      throw new Error(`Tab does not reach ${selector}`);
    };
    await focusOn("[data-sample=wall]");
    await page.keyboard.press("Enter");
    await page.locator("#result").waitFor();
    await finished(page);
    await focusOn("#slider");
    const slider = page.getByRole("slider", {
      name: "Divider between the left and the right version",
    });
    await page.keyboard.press("End");
    expect(await cut(page)).toBe("100%");
    await page.keyboard.press("Home");
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowRight");
    expect(await cut(page)).toBe("1%");
    expect(await slider.getAttribute("aria-valuetext")).toBe("Bicubic covers 1 %, 1 bit 99 %");
    await focusOn("#right-choice input:checked");
    await page.keyboard.press("ArrowLeft");
    expect(await page.locator("#right-tag").innerText()).toBe("2 bit");
    await focusOn("a[download]");
  });

  test("zoomed, the picture scrolls under the divider", async () => {
    const { page } = await open();
    await takeSample(page);
    await page.getByRole("combobox", { name: "Zoom" }).selectOption("4");
    const view = page.locator("#view");
    const before = await view.evaluate((v) => [v.scrollLeft, v.scrollWidth / v.clientWidth]);
    expect(before[1]).toBeCloseTo(4, 1);
    const box = (await view.boundingBox())!;
    await page.mouse.move(box.x + box.width * 0.8, box.y + 100);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.8 - 120, box.y + 100, { steps: 4 });
    await page.mouse.up();
    expect((await view.evaluate((v) => v.scrollLeft)) - before[0]).toBeCloseTo(120, -1);
    const stands = await page.evaluate(() => {
      const left = document.getElementById("left-image")!.getBoundingClientRect().left;
      const sheet = document.getElementById("sheet")!;
      const edge = Number.parseFloat(sheet.style.getPropertyValue("--edge"));
      const bar = document.querySelector(".cut")!.getBoundingClientRect();
      return left + edge - (bar.left + bar.width / 2);
    });
    expect(Math.abs(stands)).toBeLessThan(2);
  });

  test.skipIf(!hasSharp)(
    "a chosen file and a dropped one, PNG and JPEG, without PSNR",
    async () => {
      const { page } = await open();
      const folder = temporaryFolder();
      const path = join(folder, "my picture.png");
      writeFileSync(path, encodePng(picture(40, 24, 4)));
      await page.getByLabel(/choose a file/i).setInputFiles(path);
      await page.locator("#title", { hasText: "my picture, 40 × 24 to 80 × 48 pixels" }).waitFor();
      await finished(page);
      expect((await column(page, 1)).length).toBe(5);
      expect(await page.locator("#quality-head").isVisible()).toBe(false);
      const jpeg = Buffer.from(await encodeWithSharp(picture(32, 32), "jpeg", 90)).toString(
        "base64",
      );
      await page.evaluate((base64) => {
        const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([bytes], "photo.jpg", { type: "image/jpeg" }));
        document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true }));
      }, jpeg);
      await page.locator("#title", { hasText: "photo, 32 × 32 to 64 × 64 pixels" }).waitFor();
      await finished(page);
      expect(await page.locator("#rows .failed").count()).toBe(0);
    },
  );

  test("what cannot be done is said in words", async () => {
    const { page } = await open({}, { models: PRECISIONS, limits: { maxPixels: 500 } });
    const alert = page.getByRole("alert");
    await page.getByLabel(/choose a file/i).setInputFiles({
      name: "notes.txt",
      mimeType: "text/plain",
      buffer: Buffer.from("no picture"),
    });
    await alert.waitFor();
    expect(await alert.innerText()).toContain("notes.txt is no picture that this browser can read");
    await takeSample(page);
    expect(await alert.innerText()).toMatch(/1 bit: .*at most 500 pixels, got 96x96/);
    expect(await page.locator("#rows .failed").count()).toBe(5);
  });

  test.skipIf(!hasSharp)("a server that lacks sharp gets a PNG that the browser made", async () => {
    const { page } = await open();
    let asked = 0;
    await page.route("**/upscale*", async (route) => {
      const body = route.request().postDataBuffer();
      if (body?.[0] === 0x89) return route.continue();
      asked++;
      const error = { code: "ERR_NEED_SHARP", message: "no sharp" };
      return route.fulfill({ status: 415, body: JSON.stringify({ error }) });
    });
    const buffer = Buffer.from(await encodeWithSharp(picture(32, 20), "webp", 90));
    await page
      .getByLabel(/choose a file/i)
      .setInputFiles({ name: "a.webp", mimeType: "image/webp", buffer });
    await page.locator("#note", { hasText: "so your browser made one" }).waitFor();
    await finished(page);
    expect(asked).toBe(1);
    expect(await page.locator("#rows .failed").count()).toBe(0);
  });

  test("a stopped comparison asks for nothing more, and the next picture starts afresh", async () => {
    const { page, url, log } = await open({}, { models: PRECISIONS, upscaler: { tile: 16 } });
    const buffer = Buffer.from(encodePng(picture(500, 500)));
    await page
      .getByLabel(/choose a file/i)
      .setInputFiles({ name: "big.png", mimeType: "image/png", buffer });
    await page.getByText("Full precision is at work…").first().waitFor();
    // The page says so before the server has the picture; one that never arrives leaves no entry.
    await until(async () => (await health(url)).running === 1);
    await page.getByRole("button", { name: "Stop" }).click();
    await until(() => log.some((entry) => entry.status === 0));
    await takeSample(page);
    expect((await column(page, 1)).length).toBe(5);
    expect(await page.getByRole("alert").isVisible()).toBe(false);
  });

  test("on a narrow screen nothing is cut off, and all can be reached", async () => {
    const { page } = await open({ viewport: { width: 360, height: 780 }, hasTouch: true });
    await takeSample(page);
    const { wide, seen } = await page.evaluate(() => ({
      wide: document.documentElement.scrollWidth,
      seen: innerWidth,
    }));
    expect(wide).toBeLessThanOrEqual(seen);
    const stage = (await page.locator("#stage").boundingBox())!;
    expect(stage.width).toBeGreaterThan(300);
    await page.touchscreen.tap(stage.x + stage.width * 0.75, stage.y + 60);
    expect(Number.parseFloat(await cut(page))).toBeGreaterThan(65);
  });

  test("dark and light: text stands out from its ground, 4.5 to 1 or more", async () => {
    for (const colorScheme of ["light", "dark"] as const) {
      const { page } = await open({ colorScheme });
      await takeSample(page);
      const ratios = await page.evaluate(() => {
        const light = (color: string): number => {
          const channels = color
            .match(/[\d.]+/g)!
            .slice(0, 3)
            .map((v) => Number(v) / 255);
          const linear = channels.map((c) =>
            c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4,
          );
          return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
        };
        const ground = (start: Element): string => {
          for (let e: Element | null = start; e; e = e.parentElement) {
            const { backgroundColor } = getComputedStyle(e);
            if (backgroundColor !== "rgba(0, 0, 0, 0)") return backgroundColor;
          }
          return "rgb(255, 255, 255)";
        };
        const texts = "h1, .hint, .link, legend, td, th, td a, .segments label, code, #title";
        return [...document.querySelectorAll(texts)].map((e) => {
          const pair = [light(getComputedStyle(e).color), light(ground(e))];
          return [
            e.className || e.tagName,
            (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05),
          ];
        });
      });
      expect(ratios.length).toBeGreaterThan(20);
      expect(ratios.filter(([, ratio]) => (ratio as number) < 4.5)).toEqual([]);
    }
  });

  test("every control and picture has a name that can be read aloud", async () => {
    const { page } = await open();
    await takeSample(page);
    const controls = page.locator("button:visible, select:visible, input:visible, a:visible");
    for (const control of await controls.all()) {
      const { role, name } = await control.evaluate((e) => {
        const labels = (e as HTMLInputElement).labels ?? [];
        const text = [...labels].map((label) => label.textContent).join(" ");
        return { role: e.tagName, name: e.getAttribute("aria-label") || text || e.textContent };
      });
      expect(name?.trim(), role).not.toBe("");
    }
    expect(await page.getByRole("img", { name: "The picture, Bicubic" }).count()).toBe(1);
    expect(await page.getByRole("status").innerText()).toBe("harbour is enlarged; 5 versions.");
    expect(await page.getByRole("group", { name: "Left" }).getByRole("radio").count()).toBe(5);
  });
});

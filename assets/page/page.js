/**
 * The page of spr2q serve: takes a picture, has it enlarged by every model of one scale, and shows
 * any two of the results under a divider, with the time and size of each.
 */
import { clearStage, showVersion, zoomTo } from "./compare.js";
import { psnr } from "./psnr.js";

const element = (id) => document.getElementById(id);
const PATIENCE_MS = 120_000; // how long a full queue is waited for
const AGAIN_MS = 2000; // faster runs are timed twice: the first of a size prepares the network for it

const TIME_NOTE =
  "Time in the network, without decoding and writing; the better of two runs where it is quick.";
const QUALITY_NOTE = "PSNR on luma against the original that the sample was reduced from.";

/** What the server offers: models by scale. */
let models = [];
/** The picture at work: { blob, name, width, height, original } and what stops its requests. */
let current = null;
/** Results by model name: { url, bytes, milliseconds, quality } or { error }. */
let results = new Map();
const chosen = [null, null];

/** "12.3 KiB", "3.9 MiB". */
function size(bytes) {
  const kib = bytes / 1024;
  if (kib < 1024) return `${kib.toFixed(kib < 100 ? 1 : 0)} KiB`;
  return `${(kib / 1024).toFixed(kib < 10_240 ? 2 : 0)} MiB`;
}

/** "38 ms", "1.24 s". */
function time(milliseconds) {
  return milliseconds < 1000
    ? `${milliseconds.toFixed(0)} ms`
    : `${(milliseconds / 1000).toFixed(2)} s`;
}

function showError(text) {
  element("error").textContent = text;
  element("error").hidden = text === "";
}

/** What the server says went wrong, in words; the code stays for those who look it up. */
async function faultOf(response) {
  const body = await response.json().catch(() => null);
  const { code = `status ${response.status}`, message = response.statusText } = body?.error ?? {};
  return Object.assign(new Error(message), { code, status: response.status });
}

/** Name of a version for people; two of the same bits are told apart by their model's name. */
function labelOf(model) {
  const same = offered().filter((other) => other.bits === model.bits);
  if (model.kind === "bicubic") return "Bicubic";
  const bits = model.bits === 32 ? "Full precision" : `${model.bits} bit`;
  return same.length > 1 ? `${bits} (${model.name})` : bits;
}

/** Models of the chosen scale: bicubic, then from most bits to fewest. */
function offered() {
  const scale = Number(element("scale").value);
  const order = (model) => (model.kind === "bicubic" ? Number.POSITIVE_INFINITY : model.bits);
  return models.filter((model) => model.scale === scale).sort((a, b) => order(b) - order(a));
}

/** Asks once; a full queue is asked again after the time that it names. */
async function enlarge(model, blob, signal) {
  const began = performance.now();
  for (;;) {
    const url = `/upscale?model=${encodeURIComponent(model.name)}&stream=no`;
    const response = await fetch(url, { method: "POST", body: blob, signal });
    if (response.ok) {
      const run = /run;dur=([\d.]+)/.exec(response.headers.get("Server-Timing") ?? "");
      return { png: await response.blob(), milliseconds: run ? Number(run[1]) : null };
    }
    const wait = 1000 * Number(response.headers.get("Retry-After") ?? 1);
    if (response.status !== 429 || performance.now() - began + wait > PATIENCE_MS) {
      throw await faultOf(response);
    }
    say(`The server is busy; ${labelOf(model)} follows.`);
    await new Promise((resolve) => setTimeout(resolve, wait));
    signal.throwIfAborted();
  }
}

/** A result with the better of two times where it is quick. */
async function timed(model, blob, signal) {
  const first = await enlarge(model, blob, signal);
  if (first.milliseconds > AGAIN_MS) return first;
  const { milliseconds } = await enlarge(model, blob, signal);
  return { png: first.png, milliseconds: Math.min(first.milliseconds, milliseconds) };
}

/** A picture as PNG, made by the browser, for servers that read only PNG. */
async function asPng(blob) {
  const bitmap = await createImageBitmap(blob);
  const canvas = Object.assign(document.createElement("canvas"), {
    width: bitmap.width,
    height: bitmap.height,
  });
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return new Promise((resolve, reject) =>
    canvas.toBlob((png) => (png ? resolve(png) : reject(new Error("no PNG"))), "image/png"),
  );
}

function say(text) {
  element("status").textContent = text;
  element("waiting-text").textContent = text;
}

/** Draws the table and the two rows of choices from what is known. */
function draw() {
  const list = offered();
  const times = list.map((model) => results.get(model.name)?.milliseconds ?? 0);
  const slowest = Math.max(...times, 1);
  element("rows").replaceChildren(...list.map((model) => row(model, slowest)));
  element("quality-head").hidden = !current?.original;
  for (const [side, id] of ["left-choice", "right-choice"].entries()) {
    const focused = document.activeElement?.closest(`#${id}`) ? document.activeElement.value : null;
    const segments = list.map((model) => segment(model, side, id));
    element(id)
      .querySelector(".segments")
      .replaceChildren(...segments);
    if (focused !== null)
      element(id)
        .querySelector(`[value="${CSS.escape(focused)}"]`)
        ?.focus();
  }
}

function node(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function row(model, slowest) {
  const result = results.get(model.name);
  const number = (text) => node("td", { className: "number" }, text);
  const label = node("th", { scope: "row" }, labelOf(model));
  if (result?.error) {
    const text = node("td", { className: "failed", colSpan: 6 }, result.error);
    return node("tr", {}, label, text);
  }
  const meter = node("span", { className: "meter" });
  meter.style.setProperty("--share", result ? result.milliseconds / slowest : 0);
  const cells = [
    label,
    number(result ? time(result.milliseconds) : "…"),
    node("td", { className: "spark", ariaHidden: "true" }, ...(result ? [meter] : [])),
    number(model.bytes === null ? "none" : size(model.bytes)),
    number(result ? size(result.bytes) : "…"),
  ];
  if (current?.original) {
    cells.splice(3, 0, number(result ? `${result.quality.toFixed(2)} dB` : "…"));
  }
  const download = `${current.name}-x${model.scale}-${model.name}.png`;
  const link = result ? node("a", { href: result.url, download }, "Save") : "";
  if (result) link.setAttribute("aria-label", `Save the result of ${labelOf(model)}`);
  return node("tr", {}, ...cells, node("td", {}, link));
}

function segment(model, side, id) {
  const disabled = !results.get(model.name)?.url;
  const checked = chosen[side] === model.name;
  const input = node("input", { type: "radio", name: id, value: model.name, checked, disabled });
  input.addEventListener("change", () => choose(side, model));
  return node("label", {}, input, labelOf(model));
}

/** Shows a model's result at a side. */
function choose(side, model) {
  const result = results.get(model.name);
  if (!result?.url) return;
  chosen[side] = model.name;
  showVersion(side, { url: result.url, label: labelOf(model) });
}

/** Left shows bicubic (or the first result), right the latest that is not shown at the left. */
function chooseByItself(model) {
  if (chosen[0] === null) choose(0, model);
  else if (chosen[1] === null || !current.touched) choose(1, model);
}

/** Forgets the results, stops what is asked, and lets the pictures' memory go. */
function forget() {
  current?.controller.abort();
  for (const { url } of results.values()) if (url) URL.revokeObjectURL(url);
  results = new Map();
  chosen.fill(null);
}

/** Enlarges the current picture by every model of the scale, one after the other. */
async function run() {
  const work = current;
  const { signal } = work.controller;
  element("result").hidden = false;
  element("waiting").hidden = false;
  element("stop").hidden = false;
  clearStage(work.width, work.height);
  draw();
  for (const model of offered()) {
    say(`${labelOf(model)} is at work…`);
    try {
      const { png, milliseconds } = await withPng(work, (blob) => timed(model, blob, signal));
      const quality = work.original ? await psnr(png, work.original, model.scale) : null;
      if (signal.aborted) return;
      const url = URL.createObjectURL(png);
      results.set(model.name, { url, bytes: png.size, milliseconds, quality });
      chooseByItself(model);
    } catch (error) {
      if (signal.aborted) return;
      const lost = error instanceof TypeError ? "The server does not answer." : error.message;
      results.set(model.name, { error: lost });
      showError(`${labelOf(model)}: ${lost}`);
    }
    draw();
  }
  element("waiting").hidden = true;
  element("stop").hidden = true;
  say(`${work.name} is enlarged; ${[...results.values()].filter((r) => r.url).length} versions.`);
}

/** Sends the picture as it is, and as PNG where the server reads nothing else. */
async function withPng(work, send) {
  try {
    return await send(work.blob);
  } catch (error) {
    if (error.code !== "ERR_NEED_SHARP") throw error;
    work.blob = await asPng(work.blob);
    const note = "The server reads only PNG (it lacks sharp), so your browser made one.";
    element("note").textContent = `${TIME_NOTE} ${note}`;
    return send(work.blob);
  }
}

/** Takes a picture: `original` is the same at full size, where it is known. */
async function take(blob, name, original = null) {
  forget();
  showError("");
  element("note").textContent = original ? `${TIME_NOTE} ${QUALITY_NOTE}` : TIME_NOTE;
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob);
  } catch {
    current = null;
    element("result").hidden = true;
    showError(
      `${name} is no picture that this browser can read. Choose a PNG, JPEG, WebP or AVIF file.`,
    );
    return;
  }
  const { width, height } = bitmap;
  bitmap.close();
  const stem = name.replace(/\.\w+$/, "");
  current = { blob, name: stem, width, height, original, controller: new AbortController() };
  const scale = Number(element("scale").value);
  element("title").textContent =
    `${stem}, ${width} × ${height} to ${width * scale} × ${height * scale} pixels`;
  await run();
}

async function takeSample(name) {
  for (const button of document.querySelectorAll("[data-sample]")) {
    button.setAttribute("aria-pressed", String(button.dataset.sample === name));
  }
  const scale = element("scale").value;
  try {
    const get = async (path) => {
      const response = await fetch(path);
      if (!response.ok) throw await faultOf(response);
      return response.blob();
    };
    const [small, original] = await Promise.all([
      get(`/samples/${name}-x${scale}.png`),
      get(`/samples/${name}.png`),
    ]);
    await take(small, name, original);
  } catch (error) {
    showError(`The sample could not be fetched: ${error.message}`);
  }
}

function takeFile(file) {
  if (!file) return;
  for (const button of document.querySelectorAll("[data-sample]")) {
    button.removeAttribute("aria-pressed");
  }
  take(file, file.name || "picture.png");
}

/** Fetches the list of models and fills in what depends on it. */
async function begin() {
  try {
    const response = await fetch("/models");
    if (!response.ok) throw await faultOf(response);
    const answer = await response.json();
    models = answer.models;
    const { maxBytes, maxPixels } = answer.limits;
    const most = `up to ${size(maxBytes)} and ${(maxPixels / 1e6).toFixed(1)} megapixels`;
    element("limit").textContent = `PNG, JPEG, WebP or AVIF, ${most}. It goes to this server only.`;
  } catch (error) {
    showError(`The list of models could not be fetched: ${error.message}`);
    return;
  }
  const scales = [...new Set(models.map((model) => model.scale))];
  element("scale").replaceChildren(...scales.map((s) => new Option(`× ${s}`, String(s))));
  element("scale").closest("label").hidden = scales.length < 2;
  element("curl").textContent =
    `curl --data-binary @picture.png -o large.png '${location.origin}/upscale?model=${models[0].name}'`;
}

element("file").addEventListener("change", (event) => {
  takeFile(event.target.files[0]);
  event.target.value = ""; // the same file may be chosen again
});
for (const button of document.querySelectorAll("[data-sample]")) {
  button.addEventListener("click", () => takeSample(button.dataset.sample));
}
element("scale").addEventListener("change", () => {
  const pressed = document.querySelector('[data-sample][aria-pressed="true"]');
  if (pressed) takeSample(pressed.dataset.sample);
  else if (current) take(current.blob, current.name);
});
element("zoom").addEventListener("change", (event) => zoomTo(Number(event.target.value)));
for (const id of ["left-choice", "right-choice"]) {
  element(id).addEventListener("change", () => {
    current.touched = true;
  });
}
element("stop").addEventListener("click", () => {
  current?.controller.abort();
  element("waiting").hidden = true;
  element("stop").hidden = true;
  say("Stopped.");
});

const drop = element("drop");
for (const type of ["dragenter", "dragover"]) {
  document.addEventListener(type, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) drop.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  takeFile(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => takeFile(event.clipboardData.files[0]));

await begin();

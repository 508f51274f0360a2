/** The stage: two versions of one picture under a divider, at any zoom. */

const element = (id) => document.getElementById(id);
const [stage, view, sheet, slider] = ["stage", "view", "sheet", "slider"].map(element);
const sides = ["left", "right"].map((side) => ({
  image: element(`${side}-image`),
  tag: element(`${side}-tag`),
}));
let labels = ["", ""];

/** Puts the divider where the slider stands. */
function draw() {
  const share = Number(slider.value) / 100;
  stage.style.setProperty("--cut", `${slider.value}%`);
  // The left version lies on the scrolled sheet, the divider on the glass above it.
  const edge = view.scrollLeft + share * view.clientWidth;
  sheet.style.setProperty("--edge", `${edge}px`);
  const percent = Math.round(share * 100);
  const text = `${labels[0]} covers ${percent} %, ${labels[1]} ${100 - percent} %`;
  slider.setAttribute("aria-valuetext", text);
}

/** Sharp pixels where they are larger than the screen's, smooth where they are smaller. */
function sharpen() {
  const { naturalWidth } = sides[1].image;
  const shown = sheet.clientWidth * devicePixelRatio;
  sheet.classList.toggle("pixels", naturalWidth > 0 && shown >= naturalWidth);
}

/** Shows nothing; the stage takes the proportions of a picture of width x height. */
export function clearStage(width, height) {
  stage.style.setProperty("--aspect", `${width / height}`);
  for (const { image, tag } of sides) {
    image.removeAttribute("src");
    image.alt = "";
    tag.textContent = "";
  }
  draw();
}

/** Shows a version { url, label } at side 0 (left) or 1 (right). */
export function showVersion(side, { url, label }) {
  labels = labels.with(side, label);
  const { image, tag } = sides[side];
  image.src = url;
  image.alt = `The picture, ${label}`;
  tag.textContent = label;
  draw();
}

/** Zooms around the middle of what is seen. */
export function zoomTo(factor) {
  const middle = (at, size, whole) => (at + size / 2) / whole;
  const x = middle(view.scrollLeft, view.clientWidth, sheet.clientWidth);
  const y = middle(view.scrollTop, view.clientHeight, sheet.clientHeight);
  sheet.style.setProperty("--zoom", factor);
  stage.classList.toggle("zoomed", factor > 1);
  view.classList.toggle("fit", factor === 1);
  view.scrollLeft = x * sheet.clientWidth - view.clientWidth / 2;
  view.scrollTop = y * sheet.clientHeight - view.clientHeight / 2;
  sharpen();
  draw();
}

/** A mouse drags the zoomed picture; fingers and wheels scroll it by themselves. */
view.addEventListener("pointerdown", (start) => {
  if (start.pointerType !== "mouse" || start.button !== 0) return;
  const { scrollLeft, scrollTop } = view;
  const move = (now) => {
    view.scrollLeft = scrollLeft - (now.clientX - start.clientX);
    view.scrollTop = scrollTop - (now.clientY - start.clientY);
  };
  view.setPointerCapture(start.pointerId);
  view.addEventListener("pointermove", move);
  view.addEventListener("lostpointercapture", () => view.removeEventListener("pointermove", move), {
    once: true,
  });
});
view.addEventListener("dragstart", (event) => event.preventDefault());
view.addEventListener("scroll", draw);
slider.addEventListener("input", draw);
sides[1].image.addEventListener("load", sharpen);
new ResizeObserver(() => {
  sharpen();
  draw();
}).observe(view);
zoomTo(1);

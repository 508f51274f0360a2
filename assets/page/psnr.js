/** PSNR between two pictures on luma (BT.601, studio range), `border` pixels left out, in dB. */

async function lumaOf(blob) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  const luma = new Float64Array(width * height);
  for (let i = 0, at = 0; i < luma.length; i++, at += 4) {
    luma[i] = 16 + (65.481 * data[at] + 128.553 * data[at + 1] + 24.966 * data[at + 2]) / 255;
  }
  return { luma, width, height };
}

/** The two PNGs are compared where both have pixels, from the top left. */
export async function psnr(png, original, border) {
  const [a, b] = await Promise.all([lumaOf(png), lumaOf(original)]);
  const width = Math.min(a.width, b.width) - border;
  const height = Math.min(a.height, b.height) - border;
  let [sum, count] = [0, 0];
  for (let y = border; y < height; y++) {
    for (let x = border; x < width; x++, count++) {
      sum += (a.luma[y * a.width + x] - b.luma[y * b.width + x]) ** 2;
    }
  }
  return 10 * Math.log10(255 ** 2 / (sum / count));
}

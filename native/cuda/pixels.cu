// First and last step of a network: pad_image (mirrored below and right, minus the mean), and
// pixel_shuffle (channels to pixels, cropped, plus the mean) with its gradient. One thread for
// every value that is written, so writes are contiguous and nothing is written twice.
#include "device.cuh"

namespace spr2q {
namespace cuda {
namespace {

__global__ void __launch_bounds__(kElementBlock) pad_image_kernel(PadImage a) {
  const int64_t n = a.batch * a.padded_height * a.padded_width * a.channels;
  for (int64_t i = first_element(); i < n; i += element_stride()) {
    const int64_t c = i % a.channels, pixel = i / a.channels;
    const int64_t column = pixel % a.padded_width, row = pixel / a.padded_width % a.padded_height;
    const int64_t sample = pixel / a.padded_width / a.padded_height;
    const int64_t from_row = row < a.height ? row : 2 * a.height - 1 - a.reflect - row;
    const int64_t from_column = column < a.width ? column : 2 * a.width - 1 - a.reflect - column;
    const int64_t from = (sample * a.height + from_row) * a.width + from_column;
    a.y.data[i] = a.x.data[from * a.channels + c] - a.mean.data[c];
  }
}

__global__ void __launch_bounds__(kElementBlock) pixel_shuffle_kernel(PixelShuffle a) {
  const int64_t n = a.batch * a.out_height * a.out_width * a.channels, s = a.scale;
  for (int64_t i = first_element(); i < n; i += element_stride()) {
    const int64_t c = i % a.channels, pixel = i / a.channels;
    const int64_t column = pixel % a.out_width, row = pixel / a.out_width % a.out_height;
    const int64_t sample = pixel / a.out_width / a.out_height;
    const int64_t token = (sample * a.height + row / s) * a.width + column / s;
    const int64_t deep = ((token * a.channels + c) * s + row % s) * s + column % s;
    a.y.data[i] = a.x.data[deep] + a.mean.data[c];
  }
}

__global__ void __launch_bounds__(kElementBlock) pixel_shuffle_grad_kernel(PixelShuffleGrad a) {
  const int64_t s = a.scale, n = a.batch * a.height * a.width * a.channels * s * s;
  for (int64_t i = first_element(); i < n; i += element_stride()) {
    const int64_t inner = i % (s * s), c = i / (s * s) % a.channels;
    const int64_t token = i / (s * s) / a.channels;
    const int64_t column = token % a.width * s + inner % s;
    const int64_t row = token / a.width % a.height * s + inner / s;
    const int64_t sample = token / a.width / a.height;
    const bool kept = row < a.out_height && column < a.out_width;
    const int64_t shallow = (sample * a.out_height + row) * a.out_width + column;
    a.gx.data[i] = kept ? a.gy.data[shallow * a.channels + c] : 0.0f;
  }
}

}  // namespace

void pad_image(const PadImage& a) {
  const int64_t n = a.batch * a.padded_height * a.padded_width * a.channels;
  launch(pad_image_kernel, dim3(element_grid(n)), dim3(kElementBlock), 0, a);
}
void pixel_shuffle(const PixelShuffle& a) {
  const int64_t n = a.batch * a.out_height * a.out_width * a.channels;
  launch(pixel_shuffle_kernel, dim3(element_grid(n)), dim3(kElementBlock), 0, a);
}
void pixel_shuffle_grad(const PixelShuffleGrad& a) {
  const int64_t n = a.batch * a.height * a.width * a.channels * a.scale * a.scale;
  launch(pixel_shuffle_grad_kernel, dim3(element_grid(n)), dim3(kElementBlock), 0, a);
}

}  // namespace cuda
}  // namespace spr2q

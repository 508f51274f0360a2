// First and last step of a network: pad_image (mirrored below and right, minus the mean)
// and pixel_shuffle (channels to pixels, cropped, plus the mean) with its gradient. All tensors
// are (batch, height, width, channels).
#include "../core/ops.hpp"

namespace spr2q {
namespace ops {

void pad_image(const PadImage& a) {
  for (int64_t b = 0; b < a.batch; ++b) {
    for (int64_t row = 0; row < a.padded_height; ++row) {
      for (int64_t column = 0; column < a.padded_width; ++column) {
        const int64_t from_row = row < a.height ? row : 2 * a.height - 1 - a.reflect - row;
        const int64_t from_column =
            column < a.width ? column : 2 * a.width - 1 - a.reflect - column;
        for (int64_t c = 0; c < a.channels; ++c) {
          const int64_t to = ((b * a.padded_height + row) * a.padded_width + column);
          const int64_t from = (b * a.height + from_row) * a.width + from_column;
          a.y.data[to * a.channels + c] = a.x.data[from * a.channels + c] - a.mean.data[c];
        }
      }
    }
  }
}

namespace {

// Index into the deep tensor of output pixel (row, column, c) of image b, by the rule of ops.hpp.
template <class Args>
int64_t deep_index(const Args& a, int64_t b, int64_t row, int64_t column, int64_t c) {
  const int64_t s = a.scale;
  const int64_t token = (b * a.height + row / s) * a.width + column / s;
  return token * a.channels * s * s + c * s * s + row % s * s + column % s;
}

// Calls body(index into the shallow tensor, index into the deep one, c) for each output value.
template <class Args, class Body>
void each_pixel(const Args& a, Body body) {
  int64_t at = 0;
  for (int64_t b = 0; b < a.batch; ++b) {
    for (int64_t row = 0; row < a.out_height; ++row) {
      for (int64_t column = 0; column < a.out_width; ++column) {
        for (int64_t c = 0; c < a.channels; ++c) body(at++, deep_index(a, b, row, column, c), c);
      }
    }
  }
}

}  // namespace

void pixel_shuffle(const PixelShuffle& a) {
  each_pixel(a, [&](int64_t shallow, int64_t deep, int64_t c) {
    a.y.data[shallow] = a.x.data[deep] + a.mean.data[c];
  });
}

void pixel_shuffle_grad(const PixelShuffleGrad& a) {
  const int64_t size = a.batch * a.height * a.width * a.channels * a.scale * a.scale;
  for (int64_t i = 0; i < size; ++i) a.gx.data[i] = 0.0f;
  each_pixel(a, [&](int64_t shallow, int64_t deep, int64_t) {
    a.gx.data[deep] = a.gy.data[shallow];
  });
}

}  // namespace ops
}  // namespace spr2q

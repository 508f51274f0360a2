// Fast padding and pixel shuffle; shapes and formulas as in native/ops/pixels.cpp. Work is split
// by image rows; RGB at scales 2, 3 and 4 has loops of constant length, which the compiler unrolls.
#include "sweep.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

// Image rows per chunk for rows of `width` values; a crop may leave none.
static inline int64_t image_grain(int64_t width) {
  return width > 0 && width < kSweepGrain ? kSweepGrain / width : 1;
}

// One output row of pixel_shuffle from the tokens of its input row, `x` at the first of the
// values this row takes. kScale, kChannels: 0 where only known at run time.
template <int kScale, int kChannels>
static void shuffle_row(const PixelShuffle& a, const float* x, float* y) {
  const int64_t s = kScale > 0 ? kScale : a.scale;
  const int64_t channels = kChannels > 0 ? kChannels : a.channels;
  const float* mean = a.mean.data;
  const int64_t whole = a.out_width / s;
  for (int64_t token = 0; token <= whole; ++token) {
    const int64_t pixels = token < whole ? s : a.out_width - whole * s;
    for (int64_t i = 0; i < pixels; ++i) {
      for (int64_t c = 0; c < channels; ++c) *y++ = x[c * s * s + i] + mean[c];
    }
    x += channels * s * s;
  }
}

// The reverse: one row of gy into the tokens of its input row.
template <int kScale, int kChannels>
static void unshuffle_row(const PixelShuffleGrad& a, const float* gy, float* gx) {
  const int64_t s = kScale > 0 ? kScale : a.scale;
  const int64_t channels = kChannels > 0 ? kChannels : a.channels;
  const int64_t whole = a.out_width / s;
  for (int64_t token = 0; token <= whole; ++token) {
    const int64_t pixels = token < whole ? s : a.out_width - whole * s;
    for (int64_t i = 0; i < pixels; ++i) {
      for (int64_t c = 0; c < channels; ++c) gx[c * s * s + i] = *gy++;
    }
    gx += channels * s * s;
  }
}

}  // namespace

void pad_image(const PadImage& a) {
  const Pattern means = repeat(a.mean.data, a.channels, 0);
  const int64_t width = a.width * a.channels, padded = a.padded_width * a.channels;
  const float* x = a.x.data;
  float* y = a.y.data;
  parallel_for(a.batch * a.padded_height, image_grain(padded), [=](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      const int64_t b = line / a.padded_height, row = line % a.padded_height;
      const int64_t from_row = row < a.height ? row : 2 * a.height - 1 - a.reflect - row;
      const float* from = x + (b * a.height + from_row) * width;
      float* to = y + line * padded;
      sweep_pattern(means.size, 0, width, [=](int64_t i, int64_t j, auto lanes) {
        lanes.store(to + i, lanes.load(from + i) - load(means.data + j));
      });
      for (int64_t column = a.width; column < a.padded_width; ++column) {
        for (int64_t c = 0; c < a.channels; ++c) {
          const int64_t from_column = 2 * a.width - 1 - a.reflect - column;
          to[column * a.channels + c] = to[from_column * a.channels + c];
        }
      }
    }
  });
}

void pixel_shuffle(const PixelShuffle& a) {
  const int64_t s = a.scale, row_size = a.width * a.channels * s * s;
  const int64_t lines = a.batch * a.out_height;
  parallel_for(lines, image_grain(a.out_width * a.channels), [=](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      const int64_t b = line / a.out_height, row = line % a.out_height;
      const float* x = a.x.data + (b * a.height + row / s) * row_size + row % s * s;
      float* y = a.y.data + line * a.out_width * a.channels;
      if (a.channels == 3 && s == 2) {
        shuffle_row<2, 3>(a, x, y);
      } else if (a.channels == 3 && s == 3) {
        shuffle_row<3, 3>(a, x, y);
      } else if (a.channels == 3 && s == 4) {
        shuffle_row<4, 3>(a, x, y);
      } else {
        shuffle_row<0, 0>(a, x, y);
      }
    }
  });
}

void pixel_shuffle_grad(const PixelShuffleGrad& a) {
  const int64_t s = a.scale, row_size = a.width * a.channels * s * s;
  const bool cropped_width = a.out_width < a.width * s;
  parallel_for(a.batch * a.height, image_grain(row_size), [=](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      const int64_t b = line / a.height, row = line % a.height;
      float* gx = a.gx.data + line * row_size;
      if (cropped_width || (row + 1) * s > a.out_height) {
        std::memset(gx, 0, static_cast<size_t>(row_size) * sizeof(float));
      }
      for (int64_t r = 0; r < s && row * s + r < a.out_height; ++r) {
        const float* gy =
            a.gy.data + (b * a.out_height + row * s + r) * a.out_width * a.channels;
        if (a.channels == 3 && s == 2) {
          unshuffle_row<2, 3>(a, gy, gx + r * s);
        } else if (a.channels == 3 && s == 3) {
          unshuffle_row<3, 3>(a, gy, gx + r * s);
        } else if (a.channels == 3 && s == 4) {
          unshuffle_row<4, 3>(a, gy, gx + r * s);
        } else {
          unshuffle_row<0, 0>(a, gy, gx + r * s);
        }
      }
    }
  });
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q

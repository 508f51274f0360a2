// What every backend of CodedDepthwiseConv must compute alike, bit by bit: the tap weights behind
// the packed codes, and the float32 constants of the border classes. A padded pixel is real 0, not
// a point of the code grid, so the constant of an output pixel depends on which taps lie inside
// the image: min(extent, kernel) classes along each axis. Everything is static inline: this header
// is compiled once per instruction set, and nothing of it may be shared by the linker.
#pragma once
#include "ops.hpp"
#include "shared.hpp"

namespace spr2q {

constexpr int kMaxDepthwiseTaps = 25;  // 5 x 5

// Code `index` of a row of codes packed at `bits` each, little-endian; reads its own bytes only.
SPR2Q_SHARED int packed_code(const uint8_t* row, int64_t index, int64_t bits) {
  const int64_t bit = index * bits, shift = bit % 8;
  int window = row[bit / 8];
  if (shift + bits > 8) window |= row[bit / 8 + 1] << 8;
  return (window >> shift) & ((1 << bits) - 1);
}

// The kernel*kernel weight codes of one channel.
SPR2Q_SHARED void depthwise_codes(const CodedDepthwiseConv& a, int64_t channel, int* codes) {
  const int64_t taps = a.kernel * a.kernel;
  const uint8_t* row = a.weight.data + channel * ((taps * a.storage_bits + 7) / 8);
  for (int64_t i = 0; i < taps; ++i) codes[i] = packed_code(row, i, a.storage_bits);
}

// The float32 scalars of one channel: y = fma(S, acc, fma(R, total, constant)).
struct DepthwiseScales {
  float x_lower, weight_lower, weight_step, s, r;
};

SPR2Q_SHARED DepthwiseScales depthwise_scales(const CodedDepthwiseConv& a, int64_t c) {
  const bool by_channel = a.x_granularity == kColumn, by_row = a.weight_granularity == kRow;
  const float x_levels = static_cast<float>((1 << a.x_bits) - 1);
  const float weight_levels = static_cast<float>((1 << a.weight_bits) - 1);
  const float x_range = by_channel ? a.x_upper.data[0] : a.x_upper.data[0] - a.x_lower.data[0];
  DepthwiseScales scales;
  scales.x_lower = a.x_lower.data[by_channel ? c : 0];
  scales.weight_lower = a.weight_lower.data[by_row ? c : 0];
  scales.weight_step =
      (a.weight_upper.data[by_row ? c : 0] - scales.weight_lower) / weight_levels;
  const float x_step = x_range / x_levels;
  scales.s = x_step * scales.weight_step;
  scales.r = x_step * scales.weight_lower;
  return scales;
}

// Border classes of an axis: `count` of them, numbered from the top (left); `interior` is the class
// of a pixel that sees every tap, where the extent allows one.
SPR2Q_SHARED int64_t border_class_count(int64_t extent, int64_t kernel) {
  return extent < kernel ? extent : kernel;
}
SPR2Q_SHARED int64_t border_class(int64_t position, int64_t extent, int64_t kernel) {
  const int64_t pad = kernel / 2;
  if (extent < kernel || position < pad) return position;
  return position >= extent - pad ? position - extent + kernel : pad;
}
// A pixel of the class, and the taps [first, last) that it sees.
SPR2Q_SHARED void border_taps(int64_t cls, int64_t extent, int64_t kernel, int64_t* first,
                               int64_t* last) {
  const int64_t pad = kernel / 2;
  const int64_t position = extent < kernel || cls <= pad ? cls : extent - kernel + cls;
  *first = position < pad ? pad - position : 0;
  *last = extent + pad - position < kernel ? extent + pad - position : kernel;
}

// constant of channel c in the classes (row_class, column_class), summed in double in tap order.
SPR2Q_SHARED float depthwise_constant(const CodedDepthwiseConv& a, const DepthwiseScales& scales,
                                       const int* codes, int64_t c, int64_t row_class,
                                       int64_t column_class) {
  int64_t top, bottom, left, right;
  border_taps(row_class, a.height, a.kernel, &top, &bottom);
  border_taps(column_class, a.width, a.kernel, &left, &right);
  double weights = 0;
  for (int64_t i = top; i < bottom; ++i) {
    for (int64_t j = left; j < right; ++j) {
      weights += static_cast<double>(scales.weight_step) * codes[i * a.kernel + j] +
                 static_cast<double>(scales.weight_lower);
    }
  }
  const double bias = a.bias ? static_cast<double>(a.bias.data[c]) : 0.0;
  return static_cast<float>(bias + static_cast<double>(scales.x_lower) * weights);
}

}  // namespace spr2q

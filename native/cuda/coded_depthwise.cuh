// An output pixel of an integer depth-wise convolution on codes, one channel or four neighbouring
// ones at a time: what its own kernel (coded_depthwise_conv.cu) and its place in a segment
// (segment.cu) do to it. Taps, scales and border constants come from tables of the convolution; sums
// over the taps inside the image are exact integers.
#pragma once
#include "../core/coded_depthwise.hpp"
#include "coder.cuh"
#include "device.cuh"

namespace spr2q {
namespace cuda {

// Made once, all on 16-byte boundaries: y = fma(s, sum of products, fma(r, sum of codes, constant)).
struct DepthwiseTables {
  int* codes;        // (taps, channels)
  float *s, *r;      // (channels)
  float* constants;  // (row classes, column classes, channels)
};

struct Depthwise {
  const uint8_t* x;
  DepthwiseTables tables;
  int64_t height, width, channels, column_classes;
};

// Of one thread: kVector neighbouring channels, as many as a load brings.
template <int kVector>
struct Channels {
  float values[kVector];
};
SPR2Q_DEVICE Channels<1> load_channels(const float* from, Channels<1>) { return {{from[0]}}; }
SPR2Q_DEVICE Channels<4> load_channels(const float* from, Channels<4>) {
  const float4 four = *reinterpret_cast<const float4*>(from);
  return {{four.x, four.y, four.z, four.w}};
}

// Adds a tap: products of codes and weights, and the codes themselves.
SPR2Q_DEVICE void add_tap(const uint8_t* x, const int* weights, int (&products)[1], int (&sums)[1]) {
  products[0] += x[0] * weights[0];
  sums[0] += x[0];
}
SPR2Q_DEVICE void add_tap(const uint8_t* x, const int* weights, int (&products)[4], int (&sums)[4]) {
  const unsigned codes = *reinterpret_cast<const unsigned*>(x);
  const uint4 four = *reinterpret_cast<const uint4*>(weights);
  const unsigned row[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const int code = static_cast<int>(codes >> (8 * k) & 0xff);
    products[k] += code * static_cast<int>(row[k]);
    sums[k] += code;
  }
}

// Channels c ... c + kVector - 1 of output pixel `pixel`, counted over the batch.
template <int kKernel, int kVector>
SPR2Q_DEVICE Channels<kVector> depthwise_pixel(const Depthwise& a, int64_t pixel, int64_t c) {
  constexpr int kReach = kKernel / 2;
  const int64_t line = pixel / a.width, row = line % a.height, column = pixel - line * a.width;
  const uint8_t* x = a.x + pixel * a.channels + c;
  int products[kVector] = {}, sums[kVector] = {};
#pragma unroll
  for (int dy = 0; dy < kKernel; ++dy) {
    const int64_t from_row = row + dy - kReach;
    if (from_row < 0 || from_row >= a.height) continue;
#pragma unroll
    for (int dx = 0; dx < kKernel; ++dx) {
      const int64_t from_column = column + dx - kReach;
      if (from_column < 0 || from_column >= a.width) continue;
      add_tap(x + ((dy - kReach) * a.width + dx - kReach) * a.channels,
              a.tables.codes + (dy * kKernel + dx) * a.channels + c, products, sums);
    }
  }
  const int64_t at = border_class(row, a.height, kKernel) * a.column_classes +
                     border_class(column, a.width, kKernel);
  const Channels<kVector> s = load_channels(a.tables.s + c, Channels<kVector>{});
  const Channels<kVector> r = load_channels(a.tables.r + c, Channels<kVector>{});
  Channels<kVector> y =
      load_channels(a.tables.constants + at * a.channels + c, Channels<kVector>{});
#pragma unroll
  for (int k = 0; k < kVector; ++k) {
    y.values[k] = fmaf(s.values[k], static_cast<float>(products[k]),
                       fmaf(r.values[k], static_cast<float>(sums[k]), y.values[k]));
  }
  return y;
}

// Where a convolution's values go, each multiplied by a factor, as codes.
struct GatedCodes {
  const float* factor;
  Coder coder;
  __device__ Grid start() const { return grid_of(coder); }
  __device__ void put(const Grid& grid, int64_t i, int64_t c, const Channels<1>& y) const {
    coder.codes[i] = code_in(coder, grid, c, factor[i] * y.values[0]);
  }
  __device__ void put(const Grid& grid, int64_t i, int64_t c, const Channels<4>& y) const {
    const Channels<4> f = load_channels(factor + i, Channels<4>{});
    unsigned codes = 0;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const float value = f.values[k] * y.values[k];
      codes |= static_cast<unsigned>(code_in(coder, grid, c + k, value)) << (8 * k);
    }
    *reinterpret_cast<unsigned*>(coder.codes + i) = codes;
  }
};

// The convolution of `a` with its tables, which are made where they are not there yet.
Depthwise depthwise_of(Scratch& scratch, const CodedDepthwiseConv& a);
// True where those tables are made of a running plan's constants, so that they outlive the op.
bool keeps_tables(const CodedDepthwiseConv& a);

static inline GatedCodes gated_codes_of(const FusedCodedDepthwiseConv& a) {
  return {a.factor.data,
          {a.lower.data, a.upper.data, a.codes.data, a.bits, a.granularity == kColumn}};
}

// True where rows of these tensors can be taken four channels at a time.
static inline bool in_fours(int64_t channels, const uint8_t* codes, const float* floats,
                            const uint8_t* result) {
  const auto on = [](const void* data, uintptr_t bytes) {
    return reinterpret_cast<uintptr_t>(data) % bytes == 0;
  };
  return channels % 4 == 0 && on(codes, 4) && on(floats, 16) && on(result, 4);
}

}  // namespace cuda
}  // namespace spr2q

// Products: linear layers and convolutions, float and on codes. The rules of reading are in ../ops.hpp.
#pragma once
#include "common.hpp"

namespace spr2q {

// y(rows,out) = x(rows,in) weight(out,in)^T + bias(out), bias optional.
struct Linear {
  F32 x, weight, bias, y;
  int64_t rows, in, out;
  SPR2Q_FIELDS(x, weight, bias, y, rows, in, out)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && in > 0 && out > 0);
    SPR2Q_NEED(x.size >= rows * in && weight.size >= out * in && y.size >= rows * out);
    SPR2Q_NEED(absent_or(bias, out));
    return nullptr;
  }
};

// The two halves of Linear, for weights that stay: `packed` holds weight and bias in the layout of
// the backend that packed them, and only that backend may read it.
static inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
constexpr int64_t kPackedWidth = 16;  // outputs are padded to whole vectors of at most 16 floats
static inline int64_t packed_linear_bytes(int64_t in, int64_t out) {
  return 4 * (in + 1) * round_up(out, kPackedWidth);
}
struct PackLinear {
  F32 weight, bias;
  U8 packed;
  int64_t in, out;
  SPR2Q_FIELDS(weight, bias, packed, in, out)
  const char* check() const {
    SPR2Q_NEED(in > 0 && out > 0 && weight.size >= out * in && absent_or(bias, out));
    SPR2Q_NEED(packed.size >= packed_linear_bytes(in, out) && aligned(packed));
    return nullptr;
  }
};
struct PackedLinear {
  F32 x;
  U8 packed;
  F32 y;
  int64_t rows, in, out;
  SPR2Q_FIELDS(x, packed, y, rows, in, out)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && in > 0 && out > 0);
    SPR2Q_NEED(x.size >= rows * in && y.size >= rows * out);
    SPR2Q_NEED(packed.size >= packed_linear_bytes(in, out) && aligned(packed));
    return nullptr;
  }
};

// gx(rows,in) = gy(rows,out) weight(out,in).
struct LinearGradInput {
  F32 gy, weight, gx;
  int64_t rows, in, out;
  SPR2Q_FIELDS(gy, weight, gx, rows, in, out)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && in > 0 && out > 0);
    SPR2Q_NEED(gx.size >= rows * in && weight.size >= out * in && gy.size >= rows * out);
    return nullptr;
  }
};

// gweight(out,in) = gy^T x, gbias(out) = column sums of gy (optional).
struct LinearGradWeight {
  F32 gy, x, gweight, gbias;
  int64_t rows, in, out;
  SPR2Q_FIELDS(gy, x, gweight, gbias, rows, in, out)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && in > 0 && out > 0);
    SPR2Q_NEED(x.size >= rows * in && gweight.size >= out * in && gy.size >= rows * out);
    SPR2Q_NEED(absent_or(gbias, out));
    return nullptr;
  }
};

// Integer product on codes, the quantised twin of Linear (specs: y = (s_x q_x + a_x)(s_w q_w + a_w)).
// x codes (rows,in) with bounds of granularity kTensor or kColumn over `in`; weight codes packed at
// `weight_bits` (8, 4, 2 or 1) per code, each of the `out` rows starting on a byte, little-endian
// within the byte; weight bounds kTensor or kRow over `out`. acc = sum q_x q_w and total = sum q_x
// are exact integers; y = fma(S, float(acc), fma(R, float(total), constant)), with
// S = step_x*step_w[o], R = step_x*lower_w[o] (float32 products) and constant =
// float32(bias[o] + sum_c lower_x[c] * (step_w[o]*q_w + lower_w[o])) summed in double.
struct CodedLinear {
  U8 x, weight;
  F32 x_lower, x_upper, weight_lower, weight_upper, bias, y;
  int64_t rows, in, out, x_bits, weight_bits, x_granularity, weight_granularity, storage_bits;
  // storage_bits: width at which weight codes are stored (8 = one a byte), >= weight_bits.
  SPR2Q_FIELDS(x, weight, x_lower, x_upper, weight_lower, weight_upper, bias, y, rows, in, out,
               x_bits, weight_bits, x_granularity, weight_granularity, storage_bits)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && in > 0 && out > 0);
    SPR2Q_NEED(x_bits >= 1 && x_bits <= 8 && weight_bits >= 1 && weight_bits <= 8);
    SPR2Q_NEED(storage_bits == 8 || storage_bits == weight_bits);
    SPR2Q_NEED(x_granularity == kTensor || x_granularity == kColumn);
    SPR2Q_NEED(weight_granularity == kTensor || weight_granularity == kRow);
    SPR2Q_NEED(x.size >= rows * in && y.size >= rows * out);
    SPR2Q_NEED(weight.size >= out * ((in * storage_bits + 7) / 8));
    SPR2Q_NEED(x_lower.size >= bound_count(x_granularity, rows, in) && x_upper.size >= 1);
    SPR2Q_NEED(weight_lower.size >= bound_count(weight_granularity, out, in));
    SPR2Q_NEED(weight_upper.size >= upper_count(weight_granularity, out));
    SPR2Q_NEED(absent_or(bias, out));
    return nullptr;
  }
};

// The two halves of CodedLinear, as PackLinear and PackedLinear: codes in the order of the
// backend's dot products (at most two bytes each), then S, R and the constant of each output.
static inline int64_t packed_coded_linear_bytes(int64_t in, int64_t out) {
  return (2 * round_up(in, 4) + 12) * round_up(out, kPackedWidth);
}
struct PackCodedLinear {
  U8 weight;
  F32 x_lower, x_upper, weight_lower, weight_upper, bias;
  U8 packed;
  int64_t in, out, x_bits, weight_bits, x_granularity, weight_granularity, storage_bits;
  SPR2Q_FIELDS(weight, x_lower, x_upper, weight_lower, weight_upper, bias, packed, in, out, x_bits,
               weight_bits, x_granularity, weight_granularity, storage_bits)
  const char* check() const {
    SPR2Q_NEED(in > 0 && out > 0);
    SPR2Q_NEED(x_bits >= 1 && x_bits <= 8 && weight_bits >= 1 && weight_bits <= 8);
    SPR2Q_NEED(storage_bits == 8 || storage_bits == weight_bits);
    SPR2Q_NEED(x_granularity == kTensor || x_granularity == kColumn);
    SPR2Q_NEED(weight_granularity == kTensor || weight_granularity == kRow);
    SPR2Q_NEED(weight.size >= out * ((in * storage_bits + 7) / 8));
    SPR2Q_NEED(x_lower.size >= bound_count(x_granularity, 1, in) && x_upper.size >= 1);
    SPR2Q_NEED(weight_lower.size >= bound_count(weight_granularity, out, in));
    SPR2Q_NEED(weight_upper.size >= upper_count(weight_granularity, out));
    SPR2Q_NEED(absent_or(bias, out) && packed.size >= packed_coded_linear_bytes(in, out));
    SPR2Q_NEED(aligned(packed));
    return nullptr;
  }
};
struct PackedCodedLinear {
  U8 x, packed;
  F32 y;
  int64_t rows, in, out, x_bits, weight_bits;
  SPR2Q_FIELDS(x, packed, y, rows, in, out, x_bits, weight_bits)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && in > 0 && out > 0);
    SPR2Q_NEED(x_bits >= 1 && x_bits <= 8 && weight_bits >= 1 && weight_bits <= 8);
    SPR2Q_NEED(x.size >= rows * in && y.size >= rows * out);
    SPR2Q_NEED(packed.size >= packed_coded_linear_bytes(in, out) && aligned(packed));
    return nullptr;
  }
};

// Cross-correlation, stride 1, zero padding kernel/2: x(batch,height,width,in),
// weight(out,in,kernel,kernel), bias(out) optional, y(batch,height,width,out).
struct Conv2d {
  F32 x, weight, bias, y;
  int64_t batch, height, width, in, out, kernel;
  SPR2Q_FIELDS(x, weight, bias, y, batch, height, width, in, out, kernel)
  const char* check() const {
    SPR2Q_NEED(batch >= 0 && height > 0 && width > 0 && in > 0 && out > 0);
    SPR2Q_NEED(batch > 0 || height * width <= kMostPixelsOfNone);
    SPR2Q_NEED(kernel == 1 || kernel == 3 || kernel == 5);
    SPR2Q_NEED(x.size >= batch * height * width * in && y.size >= batch * height * width * out);
    SPR2Q_NEED(weight.size >= out * in * kernel * kernel && absent_or(bias, out));
    return nullptr;
  }
};

struct Conv2dGradInput {
  F32 gy, weight, gx;
  int64_t batch, height, width, in, out, kernel;
  SPR2Q_FIELDS(gy, weight, gx, batch, height, width, in, out, kernel)
  const char* check() const {
    SPR2Q_NEED(batch >= 0 && height > 0 && width > 0 && in > 0 && out > 0);
    SPR2Q_NEED(batch > 0 || height * width <= kMostPixelsOfNone);
    SPR2Q_NEED(kernel == 1 || kernel == 3 || kernel == 5);
    SPR2Q_NEED(gx.size >= batch * height * width * in && gy.size >= batch * height * width * out);
    SPR2Q_NEED(weight.size >= out * in * kernel * kernel);
    return nullptr;
  }
};

struct Conv2dGradWeight {
  F32 gy, x, gweight, gbias;
  int64_t batch, height, width, in, out, kernel;
  SPR2Q_FIELDS(gy, x, gweight, gbias, batch, height, width, in, out, kernel)
  const char* check() const {
    SPR2Q_NEED(batch >= 0 && height > 0 && width > 0 && in > 0 && out > 0);
    SPR2Q_NEED(batch > 0 || height * width <= kMostPixelsOfNone);
    SPR2Q_NEED(kernel == 1 || kernel == 3 || kernel == 5);
    SPR2Q_NEED(x.size >= batch * height * width * in && gy.size >= batch * height * width * out);
    SPR2Q_NEED(gweight.size >= out * in * kernel * kernel && absent_or(gbias, out));
    return nullptr;
  }
};

// Depth-wise cross-correlation, zero padding: weight(channels,kernel,kernel), kernel 3 or 5.
struct DepthwiseConv {
  F32 x, weight, bias, y;
  int64_t batch, height, width, channels, kernel;
  SPR2Q_FIELDS(x, weight, bias, y, batch, height, width, channels, kernel)
  const char* check() const {
    SPR2Q_NEED(batch >= 0 && height > 0 && width > 0 && channels > 0);
    SPR2Q_NEED(batch > 0 || height * width <= kMostPixelsOfNone);
    SPR2Q_NEED(kernel == 3 || kernel == 5);
    SPR2Q_NEED(x.size >= batch * height * width * channels);
    SPR2Q_NEED(y.size >= batch * height * width * channels);
    SPR2Q_NEED(weight.size >= channels * kernel * kernel && absent_or(bias, channels));
    return nullptr;
  }
};

struct DepthwiseConvGradInput {
  F32 gy, weight, gx;
  int64_t batch, height, width, channels, kernel;
  SPR2Q_FIELDS(gy, weight, gx, batch, height, width, channels, kernel)
  const char* check() const {
    SPR2Q_NEED(batch >= 0 && height > 0 && width > 0 && channels > 0);
    SPR2Q_NEED(batch > 0 || height * width <= kMostPixelsOfNone);
    SPR2Q_NEED(kernel == 3 || kernel == 5);
    SPR2Q_NEED(gx.size >= batch * height * width * channels);
    SPR2Q_NEED(gy.size >= batch * height * width * channels);
    SPR2Q_NEED(weight.size >= channels * kernel * kernel);
    return nullptr;
  }
};

struct DepthwiseConvGradWeight {
  F32 gy, x, gweight, gbias;
  int64_t batch, height, width, channels, kernel;
  SPR2Q_FIELDS(gy, x, gweight, gbias, batch, height, width, channels, kernel)
  const char* check() const {
    SPR2Q_NEED(batch >= 0 && height > 0 && width > 0 && channels > 0);
    SPR2Q_NEED(batch > 0 || height * width <= kMostPixelsOfNone);
    SPR2Q_NEED(kernel == 3 || kernel == 5);
    SPR2Q_NEED(x.size >= batch * height * width * channels);
    SPR2Q_NEED(gy.size >= batch * height * width * channels);
    SPR2Q_NEED(gweight.size >= channels * kernel * kernel && absent_or(gbias, channels));
    return nullptr;
  }
};

// Integer depth-wise convolution on codes. A padded pixel is real 0, off the grid, so only taps
// inside the image count: acc = sum q_x q_w, total = sum q_x over those taps, and
// y = fma(S, acc, fma(R, total, constant)), constant[c] = float32(bias + lower_x * sum of
// (step_w q_w + lower_w) over the same taps), in double: one value per border class and channel.
// x bounds kTensor or kColumn (per channel), weight bounds kTensor or kRow (per channel).
struct CodedDepthwiseConv {
  U8 x, weight;
  F32 x_lower, x_upper, weight_lower, weight_upper, bias, y;
  int64_t batch, height, width, channels, kernel, x_bits, weight_bits, x_granularity,
      weight_granularity, storage_bits;
  SPR2Q_FIELDS(x, weight, x_lower, x_upper, weight_lower, weight_upper, bias, y, batch, height,
               width, channels, kernel, x_bits, weight_bits, x_granularity, weight_granularity,
               storage_bits)
  const char* check() const {
    SPR2Q_NEED(batch >= 0 && height > 0 && width > 0 && channels > 0);
    SPR2Q_NEED(batch > 0 || height * width <= kMostPixelsOfNone);
    SPR2Q_NEED(kernel == 3 || kernel == 5);
    SPR2Q_NEED(x_bits >= 1 && x_bits <= 8 && weight_bits >= 1 && weight_bits <= 8);
    SPR2Q_NEED(storage_bits == 8 || storage_bits == weight_bits);
    SPR2Q_NEED(x_granularity == kTensor || x_granularity == kColumn);
    SPR2Q_NEED(weight_granularity == kTensor || weight_granularity == kRow);
    SPR2Q_NEED(x.size >= batch * height * width * channels);
    SPR2Q_NEED(y.size >= batch * height * width * channels);
    SPR2Q_NEED(weight.size >= channels * ((kernel * kernel * storage_bits + 7) / 8));
    SPR2Q_NEED(x_lower.size >= bound_count(x_granularity, 1, channels) && x_upper.size >= 1);
    SPR2Q_NEED(weight_lower.size >= bound_count(weight_granularity, channels, 1));
    SPR2Q_NEED(weight_upper.size >= upper_count(weight_granularity, channels));
    SPR2Q_NEED(absent_or(bias, channels));
    return nullptr;
  }
};

}  // namespace spr2q

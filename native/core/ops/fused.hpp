// Ops that a frozen plan makes of several others (lib/infer/fuse.ts). Each gives the bits that its
// parts give one after the other on the same backend. The rules of reading are in ../ops.hpp.
#pragma once
#include "products.hpp"

namespace spr2q {

// A coded linear layer with what follows it on each token, in this order; every part but the
// product is optional:
//   v(rows,out) = packed_coded_linear(x, packed)
//   v = gelu(v) where gelu != 0;  v = factor * v where factor != 1
//   v = v + added(rows,out);  v = scale(out) * residual(rows,out) + v
//   y(rows,kept) = the first `kept` columns of v
//   n = columns first ... out-1 of v; n = layer_norm(n) with norm_weight, norm_bias (out - first)
//     (streamed != 0: y goes past the caches, for readers that come much later)
//   codes, more_codes (rows, out - first) = quantize(n), kTensor or kColumn, each with its bounds
struct FusedCodedLinear {
  U8 x, packed;
  F32 added, scale, residual, y, norm_weight, norm_bias, lower, upper;
  U8 codes;
  F32 more_lower, more_upper;
  U8 more_codes;
  int64_t rows, in, out, x_bits, weight_bits, gelu, kept, first, bits, granularity, more_bits,
      more_granularity, streamed;
  double factor;
  SPR2Q_FIELDS(x, packed, added, scale, residual, y, norm_weight, norm_bias, lower, upper, codes,
               more_lower, more_upper, more_codes, rows, in, out, x_bits, weight_bits, gelu, kept,
               first, bits, granularity, more_bits, more_granularity,
               streamed, factor)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && in > 0 && out > 0 && out <= kMostFused);
    SPR2Q_NEED(x_bits >= 1 && x_bits <= 8 && weight_bits >= 1 && weight_bits <= 8);
    SPR2Q_NEED(holds(x.size, rows, in) && packed.size >= packed_coded_linear_bytes(in, out));
    SPR2Q_NEED(aligned(packed));
    SPR2Q_NEED(absent_or(added, rows * out) && absent_or(residual, rows * out));
    SPR2Q_NEED(!residual == !scale && absent_or(scale, out));
    SPR2Q_NEED(kept >= 0 && kept <= out && absent_or(y, rows * kept));
    SPR2Q_NEED(first >= 0 && first < out);
    const int64_t columns = out - first;
    SPR2Q_NEED(!norm_weight == !norm_bias);
    SPR2Q_NEED(absent_or(norm_weight, columns) && absent_or(norm_bias, columns));
    SPR2Q_NEED(!codes || (codes.size >= rows * columns && bits >= 1 && bits <= 8));
    SPR2Q_NEED(!codes || granularity == kTensor || granularity == kColumn);
    SPR2Q_NEED(!codes || lower.size >= bound_count(granularity, rows, columns));
    SPR2Q_NEED(!codes || upper.size >= 1);
    SPR2Q_NEED(!more_codes || codes);
    SPR2Q_NEED(!more_codes || (more_codes.size >= rows * columns && more_bits >= 1));
    SPR2Q_NEED(!more_codes || more_granularity == kTensor || more_granularity == kColumn);
    SPR2Q_NEED(!more_codes || more_lower.size >= bound_count(more_granularity, rows, columns));
    SPR2Q_NEED(!more_codes || (more_upper.size >= 1 && more_bits <= 8));
    return nullptr;
  }
  // A tile of rows of this many floats stays in the first cache.
  static constexpr int64_t kMostFused = 256;
};

// codes = quantize(factor * coded_depthwise_conv(...)), with factor, codes (batch,height,width,
// channels) and bounds lower, upper of kTensor or kColumn; the other operands as in
// CodedDepthwiseConv.
struct FusedCodedDepthwiseConv {
  U8 x, weight;
  F32 x_lower, x_upper, weight_lower, weight_upper, bias, factor, lower, upper;
  U8 codes;
  int64_t batch, height, width, channels, kernel, x_bits, weight_bits, x_granularity,
      weight_granularity, storage_bits, bits, granularity;
  SPR2Q_FIELDS(x, weight, x_lower, x_upper, weight_lower, weight_upper, bias, factor, lower, upper,
               codes, batch, height, width, channels, kernel, x_bits, weight_bits, x_granularity,
               weight_granularity, storage_bits, bits, granularity)
  // The convolution alone, to y.
  CodedDepthwiseConv convolution(const F32& y) const {
    return {x, weight, x_lower, x_upper, weight_lower, weight_upper, bias, y, batch, height, width,
            channels, kernel, x_bits, weight_bits, x_granularity, weight_granularity, storage_bits};
  }
  const char* check() const {
    if (const char* problem = convolution(factor).check()) return problem;
    SPR2Q_NEED(codes.size >= batch * height * width * channels);
    SPR2Q_NEED(bits >= 1 && bits <= 8 && (granularity == kTensor || granularity == kColumn));
    SPR2Q_NEED(lower.size >= bound_count(granularity, 0, channels) && upper.size >= 1);
    return nullptr;
  }
};

// y = x * sigmoid(depthwise_conv(x)), of DepthwiseConv's shapes: a gate made from what it gates.
struct GatedDepthwiseConv {
  F32 x, weight, bias, y;
  int64_t batch, height, width, channels, kernel;
  SPR2Q_FIELDS(x, weight, bias, y, batch, height, width, channels, kernel)
  const char* check() const {
    return DepthwiseConv{x, weight, bias, y, batch, height, width, channels, kernel}.check();
  }
};

}  // namespace spr2q

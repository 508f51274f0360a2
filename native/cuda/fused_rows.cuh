// A coded linear layer with what follows it on each token (FusedCodedLinear) for the rows of one
// block: codes come in, codes go out, and what lies between stays in shared memory. A block makes all
// outputs of up to 64 rows, 48 or 64 columns at a time, into a tile; then each warp takes its rows through
// the rest, a lane for every 32nd column, as the kernels of the parts do, so that sums and bits are
// theirs.
#pragma once
#include "activations.cuh"
#include "coded_product.cuh"
#include "coder.cuh"
#include "norm.cuh"

namespace spr2q {
namespace cuda {

constexpr int kFusedRows = kProductRows<1>;  // of a block
constexpr int kFusedWarps = kProductThreads / kWarp;

// Floats of a row of the tile: 8 beyond a multiple of 16, so that the rows of a fragment fall on
// different banks.
static inline __host__ __device__ int tile_stride(int out) { return (out + 15) / 16 * 16 + 8; }

struct Fused {
  Product product;
  const float *added, *scale, *residual, *norm_weight, *norm_bias;
  float* y;
  Coder coder, more;
  int gelu, kept, first;
  float factor;
};

// Codes of a row of the tile, n(c) being its column c.
template <class Value>
SPR2Q_DEVICE void code_row(const Coder& a, const Grid& grid, int64_t row, int columns, const Value& n) {
  for (int c = lane_index(); c < columns; c += kWarp) {
    a.codes[row * columns + c] = code_in(a, grid, c, n(c));
  }
}

// What follows the product on row `row`, whose values `v` has; the whole warp.
SPR2Q_DEVICE void finish_row(const Fused& a, const Grid (&grids)[2], int64_t row, float* v) {
  const int out = static_cast<int>(a.product.out), columns = out - a.first;
  for (int c = lane_index(); c < out; c += kWarp) {
    float value = v[c];
    if (a.gelu) value = gelu_of(value);
    if (a.factor != 1.0f) value = a.factor * value;
    if (a.added) value = value + a.added[row * out + c];
    if (a.residual) value = fmaf(a.scale[c], a.residual[row * out + c], value);
    v[c] = value;
    if (c < a.kept) a.y[row * a.kept + c] = value;
  }
  if (!a.coder.codes) return;
  __syncwarp();  // the columns behind `first` are other lanes' now
  const float* n = v + a.first;
  Moments m = {0.0f, 1.0f};
  if (a.norm_weight) m = moments(n, columns);
  const auto normed = [&](int c) {
    if (!a.norm_weight) return n[c];
    return fmaf((n[c] - m.mean) * m.reciprocal, a.norm_weight[c], a.norm_bias[c]);
  };
  code_row(a.coder, grids[0], row, columns, normed);
  if (a.more.codes) code_row(a.more, grids[1], row, columns, normed);
}

template <int kTilesN>
using FusedStaging = Staging<1, kTilesN>;

// A block's rows, at most kFusedRows; the tile has tile_bytes(a). Every thread of the block calls
// it, at the beginning of the kernel or behind a barrier.
template <int kWidth, int kTilesN>
SPR2Q_DEVICE void fused_rows(const Fused& a, const Rows& rows, FusedStaging<kTilesN>& staged,
                             float* tile) {
  __shared__ Grid grids[2];
  constexpr int kColumns = 8 * kTilesN;
  if (threadIdx.x == 0 && a.coder.codes) grids[0] = grid_of(a.coder);
  if (threadIdx.x == 1 && a.more.codes) grids[1] = grid_of(a.more);
  const int out = static_cast<int>(a.product.out), stride = tile_stride(out);
  for (int column = 0; column < out; column += kColumns) {
    coded_product<kWidth>(a.product, rows, column, staged, [&](int row, int c, float value) {
      tile[row * stride + column + c] = value;
    });
  }
  __syncthreads();
  for (int row = warp_index(); row < rows.count; row += kFusedWarps) {
    finish_row(a, grids, rows[row], tile + row * stride);
  }
}

static inline int64_t tile_bytes(const Fused& a) {
  const int stride = tile_stride(static_cast<int>(a.product.out));
  return kFusedRows * stride * static_cast<int64_t>(sizeof(float));
}

static inline Fused fused_of(const FusedCodedLinear& a) {
  const Coder coder{a.lower.data, a.upper.data, a.codes.data, a.bits, a.granularity == kColumn};
  const Coder more{a.more_lower.data, a.more_upper.data, a.more_codes.data, a.more_bits,
                   a.more_granularity == kColumn};
  return {product_of_packed(a.x, a.packed, nullptr, a.rows, a.in, a.out),
          a.added.data,
          a.scale.data,
          a.residual.data,
          a.norm_weight.data,
          a.norm_bias.data,
          a.y.data,
          coder,
          more,
          static_cast<int>(a.gelu),
          a.y ? static_cast<int>(a.kept) : 0,
          static_cast<int>(a.first),
          static_cast<float>(a.factor)};
}

}  // namespace cuda
}  // namespace spr2q

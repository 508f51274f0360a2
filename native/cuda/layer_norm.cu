// Layer normalisation over the channels of each row, a warp for every row: two passes over values
// that the first one brought into the cache (mean, then squared distances, so that a large mean
// costs no digits). The gradient writes gx the same way and keeps mean and 1/deviation of each row;
// gweight and gbias are column sums.
#include "norm.cuh"
#include "sums.cuh"

namespace spr2q {
namespace cuda {
namespace {

constexpr int kRows = 8;           // rows (warps) of a block

__global__ void __launch_bounds__(kRows * kWarp) layer_norm_kernel(LayerNorm a) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRows + warp_index();
  if (row >= a.rows) return;  // the whole warp
  norm_rows<1>(a, rows_from(row, a.rows, 1));
}

__global__ void __launch_bounds__(kRows * kWarp)
layer_norm_grad_kernel(LayerNormGrad a, Moments* kept) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRows + warp_index();
  if (row >= a.rows) return;
  const float* x = a.x.data + row * a.channels;
  const float* gy = a.gy.data + row * a.channels;
  const Moments m = moments(x, a.channels);
  if (lane_index() == 0) kept[row] = m;
  float sum = 0.0f, sum_h = 0.0f;
  for (int64_t c = lane_index(); c < a.channels; c += kWarp) {
    const float g = gy[c] * a.weight.data[c];
    sum += g;
    sum_h = fmaf(g, (x[c] - m.mean) * m.reciprocal, sum_h);
  }
  const float share = 1.0f / static_cast<float>(a.channels);
  const float mean_g = warp_sum(sum) * share, mean_gh = warp_sum(sum_h) * share;
  for (int64_t c = lane_index(); c < a.channels; c += kWarp) {
    const float h = (x[c] - m.mean) * m.reciprocal, g = gy[c] * a.weight.data[c];
    a.gx.data[row * a.channels + c] = m.reciprocal * (g - mean_g - h * mean_gh);
  }
}

struct Term {
  static constexpr int kOutputs = 2;  // gweight, gbias
  static constexpr bool kFinish = false;
  LayerNormGrad a;
  const Moments* kept;
  __device__ Nothing start(int64_t, int64_t) const { return {}; }
  __device__ void add(const Nothing&, int64_t row, int64_t column, Sum* sums) const {
    const int64_t i = row * a.channels + column;
    const Moments m = kept[row];
    add_to(sums[0], a.gy.data[i] * ((a.x.data[i] - m.mean) * m.reciprocal));
    add_to(sums[1], a.gy.data[i]);
  }
  __device__ void store(int64_t, int output, int64_t column, float sum) const {
    (output == 0 ? a.gweight.data : a.gbias.data)[column] = sum;
  }
};

}  // namespace

void layer_norm(const LayerNorm& a) {
  launch(layer_norm_kernel, dim3(grid_size(divide_up(a.rows, kRows))), dim3(kRows * kWarp), 0, a);
}

void layer_norm_grad(const LayerNormGrad& a) {
  Scratch scratch;
  Moments* kept = scratch.take<Moments>(a.rows);
  launch(layer_norm_grad_kernel, dim3(grid_size(divide_up(a.rows, kRows))), dim3(kRows * kWarp), 0,
         a, kept);
  column_sums(scratch, Term{a, kept}, a.rows, a.channels);
}

}  // namespace cuda
}  // namespace spr2q

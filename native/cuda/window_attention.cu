// Window attention on float32: a thread has one query, walks the keys of its window once for the
// largest logit and once (kUniform: twice) more for the weighted sum, and makes each logit again
// instead of storing it. All threads of a warp read the same key, which the cache gives to all at
// once. Attention on codes is in coded_attention.cu.
#include "../core/grid.hpp"
#include "window.cuh"

namespace spr2q {
namespace cuda {
namespace {

constexpr int kQueries = 128;  // threads of a block
constexpr int kBlocks = 2;     // on a multiprocessor: up to 255 registers a thread

struct Attention {
  WindowAttention a;
  Windows windows;
  WindowLayout layout;
};

// Visits the logits of query p, in key order: visit(key, logit).
template <int kDim, class Visit>
SPR2Q_DEVICE void each_logit(const WindowAttention& a, const WindowView& view, int64_t positions,
                             int64_t p, int64_t head, const float (&q)[kDim], const Visit& visit) {
  const int64_t stride = a.heads * a.head_dim;
  const int place = view.base + view.places[p];
  for (int64_t j = 0; j < positions; ++j) {
    const float* k = a.k.data + view.rows[j] * stride + head * a.head_dim;
    float logit = view.bias[place - view.places[j]];
    if (view.labels[p] != view.labels[j]) logit += kWindowMask;
#pragma unroll
    for (int d = 0; d < kDim; ++d) {
      if (d < a.head_dim) logit = fmaf(q[d], k[d], logit);
    }
    visit(j, logit);
  }
}

template <int kDim>
__global__ void __launch_bounds__(kQueries, kBlocks) attention_kernel(Attention s) {
  const WindowAttention& a = s.a;
  SPR2Q_DYNAMIC_SHARED(unsigned char, shared);
  const int64_t window = blockIdx.x, head = blockIdx.y, positions = s.layout.positions;
  const WindowView view = window_view(shared, s.layout, s.windows, window);
  fill_window(view, s.layout, s.windows, window, a.bias_table.data, a.heads, head, 1.0f);
  __syncthreads();
  const int64_t p = static_cast<int64_t>(blockIdx.z) * kQueries + threadIdx.x;
  if (p >= positions) return;
  const int64_t stride = a.heads * a.head_dim;
  const int64_t at = view.rows[p] * stride + head * a.head_dim;
  float q[kDim], sums[kDim];
#pragma unroll
  for (int d = 0; d < kDim; ++d) {
    q[d] = d < a.head_dim ? a.q.data[at + d] : 0.0f;
    sums[d] = 0.0f;
  }
  const auto add = [&](int64_t j, float weight) {
    const float* v = a.v.data + view.rows[j] * stride + head * a.head_dim;
#pragma unroll
    for (int d = 0; d < kDim; ++d) {
      if (d < a.head_dim) sums[d] = fmaf(weight, v[d], sums[d]);
    }
  };
  float largest = -__builtin_inff(), sum = 0.0f, total = 0.0f;
  each_logit(a, view, positions, p, head, q,
             [&](int64_t, float logit) { largest = logit > largest ? logit : largest; });
  if (a.probability_codes != kHalfExponent || a.probabilities.data) {
    each_logit(a, view, positions, p, head, q, [&](int64_t j, float logit) {
      const float e = expf(logit - largest);
      sum += e;
      if (a.probability_codes == kFloat) add(j, e);
    });
  }
  const float share = 1.0f / sum;
  if (a.probability_codes == kFloat) total = sum;
  if (a.probability_codes == kUniform) {
    const Grid grid =
        grid_between(a.probability_bounds.data[0], a.probability_bounds.data[1], a.bits);
    total = 1.0f;
    each_logit(a, view, positions, p, head, q, [&](int64_t j, float logit) {
      add(j, value_on(grid, code_on(grid, expf(logit - largest) * share)));
    });
  }
  if (a.probability_codes == kHalfExponent) {
    const float levels = level_count(a.bits);
    each_logit(a, view, positions, p, head, q, [&](int64_t j, float logit) {
      const float code = rintf(levels * expf(0.5f * (logit - largest)));
      total += code * code;
      add(j, code * code);
    });
  }
  if (a.probabilities.data) {
    float* row = a.probabilities.data + ((window * a.heads + head) * positions + p) * positions;
    each_logit(a, view, positions, p, head, q,
               [&](int64_t j, float logit) { row[j] = expf(logit - largest) * share; });
  }
#pragma unroll
  for (int d = 0; d < kDim; ++d) {
    if (d < a.head_dim) a.y.data[at + d] = sums[d] / total;
  }
}

}  // namespace

void window_attention(const WindowAttention& a) {
  const Windows windows{a.height, a.width, a.window, a.shift};
  const Attention s{a, windows, WindowLayout::of(a.window, 1)};
  const dim3 grid(grid_size(a.batch * windows.per_sample()), grid_size(a.heads),
                  grid_size(divide_up(s.layout.positions, kQueries)));
  const auto kernel = a.head_dim <= 12   ? attention_kernel<12>
                      : a.head_dim <= 16 ? attention_kernel<16>
                      : a.head_dim <= 32 ? attention_kernel<32>
                                         : attention_kernel<64>;
  launch(kernel, grid, dim3(kQueries), s.layout.end(), s);
}

}  // namespace cuda
}  // namespace spr2q

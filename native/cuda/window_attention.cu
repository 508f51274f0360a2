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
template <class Row, class Visit>
SPR2Q_DEVICE void each_logit(const WindowAttention& a, const WindowView& view, int64_t positions,
                             int64_t p, int64_t head, const float (&q)[Row::kDim],
                             const Visit& visit) {
  const int64_t stride = a.heads * a.head_dim;
  const int place = view.base + view.places[p];
  for (int64_t j = 0; j < positions; ++j) {
    float k[Row::kDim], start = view.bias[place - view.places[j]];
    Row::load(a.k.data + view.rows[j] * stride + head * a.head_dim, a.head_dim, k);
    if (view.labels[p] != view.labels[j]) start += kWindowMask;
    visit(j, Row::dot(start, q, k));
  }
}

template <class Row>
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
  float q[Row::kDim], sums[Row::kDim] = {};
  Row::load(a.q.data + at, a.head_dim, q);
  const auto add = [&](int64_t j, float weight) {
    float v[Row::kDim];
    Row::load(a.v.data + view.rows[j] * stride + head * a.head_dim, a.head_dim, v);
    Row::add(sums, weight, v);
  };
  float largest = -__builtin_inff(), sum = 0.0f, total = 0.0f;
  each_logit<Row>(a, view, positions, p, head, q,
             [&](int64_t, float logit) { largest = logit > largest ? logit : largest; });
  if (a.probability_codes != kHalfExponent || a.probabilities.data) {
    each_logit<Row>(a, view, positions, p, head, q, [&](int64_t j, float logit) {
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
    each_logit<Row>(a, view, positions, p, head, q, [&](int64_t j, float logit) {
      add(j, value_on(grid, code_on(grid, expf(logit - largest) * share)));
    });
  }
  if (a.probability_codes == kHalfExponent) {
    const float levels = level_count(a.bits);
    each_logit<Row>(a, view, positions, p, head, q, [&](int64_t j, float logit) {
      const float code = rintf(levels * expf(0.5f * (logit - largest)));
      total += code * code;
      add(j, code * code);
    });
  }
  if (a.probabilities.data) {
    float* row = a.probabilities.data + ((window * a.heads + head) * positions + p) * positions;
    each_logit<Row>(a, view, positions, p, head, q,
               [&](int64_t j, float logit) { row[j] = expf(logit - largest) * share; });
  }
#pragma unroll
  for (int d = 0; d < Row::kDim; ++d) sums[d] /= total;
  Row::store(a.y.data + at, sums, a.head_dim);
}

}  // namespace

void window_attention(const WindowAttention& a) {
  const Windows windows{a.height, a.width, a.window, a.shift};
  const Attention s{a, windows, WindowLayout::of(a.window, 1)};
  const dim3 grid(grid_size(a.batch * windows.per_sample()), grid_size(a.heads),
                  grid_size(divide_up(s.layout.positions, kQueries)));
  with_head(a.head_dim, {a.q.data, a.k.data, a.v.data}, [&](auto row) {
    launch(attention_kernel<decltype(row)>, grid, dim3(kQueries), s.layout.end(), s);
  });
}

}  // namespace cuda
}  // namespace spr2q

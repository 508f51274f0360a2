// Gradients of window attention, every sum owned by one thread and made in one order:
//   query_kernel: a thread a query: its softmax, the quantiser's gradient, gq, and the row's
//     numbers that the others need (largest logit, 1 / sum, mean of p g, 1 / sum of codes^2);
//   key_kernel: a thread a key: gk and gv over the queries;
//   table_kernel: a thread an entry of the bias table: the pairs of one window at that offset;
//     windows are added by final_sums.
// Logits are made again in each, by the same operations, so all three see the same numbers.
#include "../core/grid.hpp"
#include "sums.cuh"
#include "window.cuh"

namespace spr2q {
namespace cuda {
namespace {

constexpr int kRows = 128;  // threads of a block

struct alignas(16) RowNumbers {
  float largest, share, mean, half_share;
};

struct Backward {
  WindowAttentionGrad a;
  Windows windows;
  WindowLayout layout;
  RowNumbers* numbers;  // (windows, heads, positions)
  float* bounds;        // parts: (blocks, 2)
  float* table;         // parts: (windows, table rows, heads)
};

// Bias and mask of a pair: what its logit starts from.
SPR2Q_DEVICE float pair_bias(const WindowView& view, int64_t p, int64_t j) {
  const float bias = view.bias[view.base + view.places[p] - view.places[j]];
  return view.labels[p] == view.labels[j] ? bias : bias + kWindowMask;
}

struct Pair {
  float p, weight, slope;  // softmax, what met v, dL/dp
  float low, high;         // what the pair adds to the bounds' gradients
};

// The quantiser between p and P, and its gradient for g = dL/dP.
SPR2Q_DEVICE Pair pair_of(const WindowAttentionGrad& a, const Grid& grid, const RowNumbers& row,
                          float logit, float g) {
  Pair pair = {expf(logit - row.largest) * row.share, 0.0f, g, 0.0f, 0.0f};
  pair.weight = pair.p;
  if (a.probability_codes == kHalfExponent) {
    const float code = rintf(grid.levels * expf(0.5f * (logit - row.largest)));
    pair.weight = code * code * row.half_share;
  } else if (a.probability_codes == kUniform) {
    const float u = position_on(grid, pair.p), code = __builtin_nearbyintf(u);
    const float error = (code - u) / grid.levels * g;
    pair.weight = value_on(grid, code);
    pair.low = (pair.p <= grid.lower ? g : 0.0f) - error;
    pair.high = (pair.p >= grid.upper ? g : 0.0f) + error;
    if (pair.p < grid.lower || pair.p > grid.upper) pair.slope = 0.0f;
  }
  return pair;
}

SPR2Q_DEVICE Grid probability_grid(const WindowAttentionGrad& a) {
  if (a.probability_codes == kUniform) {
    return grid_between(a.probability_bounds.data[0], a.probability_bounds.data[1], a.bits);
  }
  return {0.0f, 0.0f, 0.0f, 0.0f, level_count(a.bits)};
}

// What every kernel here starts with.
struct Here {
  int64_t window, head, stride, column;
  WindowView view;
};
SPR2Q_DEVICE Here begin(const Backward& s, unsigned char* shared) {
  const Here here = {blockIdx.x, blockIdx.y, s.a.heads * s.a.head_dim,
                     static_cast<int64_t>(blockIdx.y) * s.a.head_dim,
                     window_view(shared, s.layout, s.windows, blockIdx.x)};
  fill_window(here.view, s.layout, s.windows, here.window, s.a.bias_table.data, s.a.heads,
              here.head, 1.0f);
  __syncthreads();
  return here;
}
SPR2Q_DEVICE int64_t numbers_at(const Backward& s, const Here& here) {
  return (here.window * s.a.heads + here.head) * s.layout.positions;
}

template <class Row>
__global__ void __launch_bounds__(kRows, 1) query_kernel(Backward s) {
  const WindowAttentionGrad& a = s.a;
  SPR2Q_DYNAMIC_SHARED(unsigned char, shared);
  const Here here = begin(s, shared);
  const WindowView& view = here.view;
  const int64_t wanted = static_cast<int64_t>(blockIdx.z) * kRows + threadIdx.x;
  const bool inside = wanted < s.layout.positions;
  const int64_t p = inside ? wanted : 0, at = view.rows[p] * here.stride + here.column;
  const Grid grid = probability_grid(a);
  float q[Row::kDim], gy[Row::kDim], gq[Row::kDim] = {}, k[Row::kDim], v[Row::kDim];
  Row::load(a.q.data + at, a.head_dim, q);
  Row::load(a.gy.data + at, a.head_dim, gy);
  const auto each_key = [&](const auto& visit) {
    for (int64_t j = 0; j < s.layout.positions; ++j) {
      const int64_t key = view.rows[j] * here.stride + here.column;
      Row::load(a.k.data + key, a.head_dim, k);
      visit(key, Row::dot(pair_bias(view, p, j), q, k));
    }
  };
  RowNumbers row = {-__builtin_inff(), 0.0f, 0.0f, 0.0f};
  each_key([&](int64_t, float logit) { row.largest = logit > row.largest ? logit : row.largest; });
  float sum = 0.0f, squares = 0.0f;
  each_key([&](int64_t, float logit) {
    sum += expf(logit - row.largest);
    const float code = rintf(grid.levels * expf(0.5f * (logit - row.largest)));
    squares += code * code;
  });
  row.share = 1.0f / sum;
  row.half_share = 1.0f / squares;
  Sum low = {0.0f, 0.0f}, high = {0.0f, 0.0f};
  each_key([&](int64_t key, float logit) {
    Row::load(a.v.data + key, a.head_dim, v);
    const Pair pair = pair_of(a, grid, row, logit, Row::dot(0.0f, gy, v));
    row.mean = fmaf(pair.p, pair.slope, row.mean);
    add_to(low, pair.low);
    add_to(high, pair.high);
  });
  each_key([&](int64_t key, float logit) {
    Row::load(a.v.data + key, a.head_dim, v);
    const Pair pair = pair_of(a, grid, row, logit, Row::dot(0.0f, gy, v));
    Row::add(gq, pair.p * (pair.slope - row.mean), k);  // k is this key's row
  });
  if (inside) {
    Row::store(a.gq.data + at, gq, a.head_dim);
    s.numbers[numbers_at(s, here) + p] = row;
  }
  if (a.probability_codes != kUniform) return;  // the whole grid
  const float block_low = block_sum<kRows>(inside ? value_of(low) : 0.0f);
  const float block_high = block_sum<kRows>(inside ? value_of(high) : 0.0f);
  if (threadIdx.x != 0) return;
  const int64_t block = (here.window * gridDim.y + here.head) * gridDim.z + blockIdx.z;
  s.bounds[2 * block] = block_low;
  s.bounds[2 * block + 1] = block_high;
}

template <class Row>
__global__ void __launch_bounds__(kRows, 1) key_kernel(Backward s) {
  const WindowAttentionGrad& a = s.a;
  SPR2Q_DYNAMIC_SHARED(unsigned char, shared);
  const Here here = begin(s, shared);
  const WindowView& view = here.view;
  const int64_t j = static_cast<int64_t>(blockIdx.z) * kRows + threadIdx.x;
  if (j >= s.layout.positions) return;
  const int64_t at = view.rows[j] * here.stride + here.column;
  const Grid grid = probability_grid(a);
  const RowNumbers* numbers = s.numbers + numbers_at(s, here);
  float k[Row::kDim], v[Row::kDim], gk[Row::kDim] = {}, gv[Row::kDim] = {};
  Row::load(a.k.data + at, a.head_dim, k);
  Row::load(a.v.data + at, a.head_dim, v);
  for (int64_t p = 0; p < s.layout.positions; ++p) {
    const int64_t query = view.rows[p] * here.stride + here.column;
    float q[Row::kDim], gy[Row::kDim];
    Row::load(a.q.data + query, a.head_dim, q);
    Row::load(a.gy.data + query, a.head_dim, gy);
    const RowNumbers row = numbers[p];
    const float logit = Row::dot(pair_bias(view, p, j), k, q);
    const Pair pair = pair_of(a, grid, row, logit, Row::dot(0.0f, v, gy));
    Row::add(gk, pair.p * (pair.slope - row.mean), q);
    Row::add(gv, pair.weight, gy);
  }
  Row::store(a.gk.data + at, gk, a.head_dim);
  Row::store(a.gv.data + at, gv, a.head_dim);
}

// Entry (dy, dx) of the table: queries (y, x) whose key (y - dy, x - dx) lies in the window.
template <class Row>
__global__ void __launch_bounds__(kRows, 1) table_kernel(Backward s) {
  const WindowAttentionGrad& a = s.a;
  SPR2Q_DYNAMIC_SHARED(unsigned char, shared);
  const Here here = begin(s, shared);
  const WindowView& view = here.view;
  const int64_t entry = static_cast<int64_t>(blockIdx.z) * kRows + threadIdx.x, w = a.window;
  if (entry >= s.layout.table) return;
  const int64_t dy = entry / (2 * w - 1) - (w - 1), dx = entry % (2 * w - 1) - (w - 1);
  const Grid grid = probability_grid(a);
  const RowNumbers* numbers = s.numbers + numbers_at(s, here);
  float sum = 0.0f;
  for (int64_t y = dy > 0 ? dy : 0; y < (dy < 0 ? w + dy : w); ++y) {
    for (int64_t x = dx > 0 ? dx : 0; x < (dx < 0 ? w + dx : w); ++x) {
      const int64_t p = y * w + x, j = p - dy * w - dx;
      const int64_t query = view.rows[p] * here.stride + here.column;
      const int64_t key = view.rows[j] * here.stride + here.column;
      float q[Row::kDim], gy[Row::kDim], k[Row::kDim], v[Row::kDim];
      Row::load(a.q.data + query, a.head_dim, q);
      Row::load(a.gy.data + query, a.head_dim, gy);
      Row::load(a.k.data + key, a.head_dim, k);
      Row::load(a.v.data + key, a.head_dim, v);
      const RowNumbers row = numbers[p];
      const float logit = Row::dot(pair_bias(view, p, j), q, k);
      const Pair pair = pair_of(a, grid, row, logit, Row::dot(0.0f, gy, v));
      sum += pair.p * (pair.slope - row.mean);
    }
  }
  s.table[(here.window * s.layout.table + entry) * a.heads + here.head] = sum;
}

template <class Row>
void backward(const Backward& s, int64_t windows) {
  const unsigned blocks = grid_size(divide_up(s.layout.positions, kRows));
  const dim3 grid(grid_size(windows), grid_size(s.a.heads), blocks);
  const dim3 table(grid.x, grid.y, grid_size(divide_up(s.layout.table, kRows)));
  launch(query_kernel<Row>, grid, dim3(kRows), s.layout.end(), s);
  launch(key_kernel<Row>, grid, dim3(kRows), s.layout.end(), s);
  launch(table_kernel<Row>, table, dim3(kRows), s.layout.end(), s);
}

}  // namespace

void window_attention_grad(const WindowAttentionGrad& a) {
  Scratch scratch;
  const Windows windows{a.height, a.width, a.window, a.shift};
  const WindowLayout layout = WindowLayout::of(a.window, 1);
  const int64_t count = a.batch * windows.per_sample();
  const int64_t blocks = count * a.heads * divide_up(layout.positions, kRows);
  const Backward s{a,
                   windows,
                   layout,
                   scratch.take<RowNumbers>(count * a.heads * layout.positions),
                   scratch.take<float>(2 * blocks),
                   scratch.take<float>(count * layout.table * a.heads)};
  with_head(a.head_dim, {a.q.data, a.k.data, a.v.data, a.gy.data},
            [&](auto row) { backward<decltype(row)>(s, count); });
  const int64_t entries = layout.table * a.heads;
  const int64_t bounds = a.probability_codes == kUniform ? 2 : 0;
  final_sums({{s.table, a.gbias_table.data, count, entries, entries},
              {s.bounds, a.gprobability_bounds.data, blocks, bounds, 2}});
}

}  // namespace cuda
}  // namespace spr2q

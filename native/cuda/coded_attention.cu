// Window attention on codes: on the tensor cores where probabilities are half-exponent codes of up to
// 4 bits, the form that serves (coded_attention.cuh). Other probability codes add floats key by key,
// in the reference's order: a thread a query.
#include "coded_attention.cuh"

namespace spr2q {
namespace cuda {
namespace {

template <int kHalves, int kSide>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks) tile_kernel(AttentionTiles s) {
  SPR2Q_DYNAMIC_SHARED(unsigned char, shared);
  __shared__ Grid coded;
  const Coder coder = coder_of(s.a);
  if (threadIdx.x == 0 && coder.codes) coded = grid_of(coder);
  attend_head<kHalves, kSide>(s, shared, blockIdx.x, blockIdx.y, coder, coded);
}

// ---- All other codes: a thread a query, floats added in key order -------------------------------

constexpr int kQueries = 128;    // threads of a block
constexpr int kSomeColumns = 16; // of v in registers; more take another walk

struct Ordered {
  CodedWindowAttention a;
  Windows windows;
  WindowLayout layout;
};

// Visits the logits of one query, in key order.
template <int kWords, class Visit>
SPR2Q_DEVICE void each_logit(const Ordered& s, const WindowView& view, const CodedScales& scales,
                             int64_t p, int64_t head, const unsigned (&q)[kWords], bool wide,
                             const Visit& visit) {
  const CodedWindowAttention& a = s.a;
  const int64_t stride = a.heads * a.head_dim;
  const int place = view.base + view.places[p];
  for (int64_t j = 0; j < s.layout.positions; ++j) {
    const uint8_t* key = a.k.data + view.rows[j] * stride + head * a.head_dim;
    unsigned product = 0;
    int sum = 0;
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      const unsigned word = code_word<8>(key, i, a.head_dim, wide);
      product = __dp4a(q[i], word, product);
      sum += code_sum<8>(word);
    }
    float bias = view.bias[place - view.places[j]];
    if (view.masked) bias += mask_of(view.labels[p], view.labels[j]) * scales.factor;
    const float rest = fmaf(scales.key_scale, static_cast<float>(sum), bias);
    visit(j, fmaf(scales.scale, static_cast<float>(product), rest));
  }
}

template <int kWords>
__global__ void __launch_bounds__(kQueries, 1) ordered_kernel(Ordered s) {
  const CodedWindowAttention& a = s.a;
  SPR2Q_DYNAMIC_SHARED(unsigned char, shared);
  const int64_t window = blockIdx.x, head = blockIdx.y;
  const WindowView view = window_view(shared, s.layout, s.windows, window);
  const CodedScales scales = coded_scales(a);
  fill_window(view, s.layout, s.windows, window, a.bias_table.data, a.heads, head, scales.factor);
  __syncthreads();
  const int64_t p = static_cast<int64_t>(blockIdx.z) * kQueries + threadIdx.x;
  if (p >= s.layout.positions) return;
  const int64_t stride = a.heads * a.head_dim, at = view.rows[p] * stride + head * a.head_dim;
  const bool wide = word_aligned(a, a.q.data) && word_aligned(a, a.k.data);
  unsigned q[kWords];
#pragma unroll
  for (int i = 0; i < kWords; ++i) q[i] = code_word<8>(a.q.data + at, i, a.head_dim, wide);
  const auto walk = [&](const auto& visit) {
    each_logit(s, view, scales, p, head, q, wide, visit);
  };
  float largest = kLowest, sum = 0.0f;
  walk([&](int64_t, float logit) { largest = logit > largest ? logit : largest; });
  const auto exponential = [&](float logit) { return exp2_shared((logit - largest) * kLog2E); };
  if (a.probability_codes != kHalfExponent) {
    walk([&](int64_t, float logit) { sum += exponential(logit); });
  }
  const float share = 1.0f / sum, levels = level_count(a.bits);
  Grid grid = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
  if (a.probability_codes == kUniform) {
    grid = grid_between(a.probability_bounds.data[0], a.probability_bounds.data[1], a.bits);
  }
  for (int64_t first = 0; first < a.head_dim; first += kSomeColumns) {
    const auto code_of_v = [&](int64_t j, int d) -> int {
      const int64_t column = first + d;
      return column < a.head_dim ? a.v.data[view.rows[j] * stride + head * a.head_dim + column] : 0;
    };
    float* y = a.y.data + at + first;
    const int64_t here = a.head_dim - first < kSomeColumns ? a.head_dim - first : kSomeColumns;
    if (a.probability_codes == kHalfExponent) {
      int64_t sums[kSomeColumns] = {}, total = 0;
      walk([&](int64_t j, float logit) {
        const float x = on_grid(a) ? grid_exponent(grid_index(largest, logit))
                                   : (logit - largest) * kHalfLog2E;
        const int64_t code = static_cast<int64_t>(__builtin_nearbyintf(levels * exp2_shared(x)));
        total += code * code;
#pragma unroll
        for (int d = 0; d < kSomeColumns; ++d) sums[d] += code * code * code_of_v(j, d);
      });
#pragma unroll
      for (int d = 0; d < kSomeColumns; ++d) {
        if (d >= here) continue;
        const double mean = static_cast<double>(sums[d]) / static_cast<double>(total);
        y[d] = value_on(scales.v, static_cast<float>(mean));
      }
      continue;
    }
    float sums[kSomeColumns] = {}, total = 0.0f;
    walk([&](int64_t j, float logit) {
      float weight = exponential(logit);
      if (a.probability_codes == kUniform) {
        weight = value_on(grid, code_on(grid, weight * share));
        total += weight;
      }
#pragma unroll
      for (int d = 0; d < kSomeColumns; ++d) {
        sums[d] = fmaf(weight, static_cast<float>(code_of_v(j, d)), sums[d]);
      }
    });
#pragma unroll
    for (int d = 0; d < kSomeColumns; ++d) {
      if (d >= here) continue;
      y[d] = a.probability_codes == kUniform
                 ? fmaf(scales.v.step, sums[d], scales.v.lower * total)
                 : value_on(scales.v, sums[d] * share);
    }
  }
}

}  // namespace

void quantize(const Quantize&);

void coded_window_attention(const CodedWindowAttention& a) {
  const Windows windows{a.height, a.width, a.window, a.shift};
  const int64_t count = a.batch * windows.per_sample();
  const AttentionTiles tiles = attention_tiles(a);
  const bool tiled = fits_tiles(a, tiles);
  if (a.y_codes && !tiled) {  // in two steps
    Scratch scratch;
    const int64_t rows = a.batch * a.height * a.width, columns = a.heads * a.head_dim;
    CodedWindowAttention plain = a;
    plain.y = {scratch.take<float>(rows * columns), rows * columns};
    plain.y_codes = {nullptr, 0};
    coded_window_attention(plain);
    quantize({plain.y, a.y_lower, a.y_upper, a.y_codes, rows, columns, a.y_granularity, a.y_bits});
    return;
  }
  if (tiled) {
    const bool narrow = tiles.halves == 1;
    const auto kernel = narrow && a.window == 16  ? tile_kernel<1, 16>
                        : narrow && a.window == 8 ? tile_kernel<1, 8>
                        : narrow                  ? tile_kernel<1, 0>
                        : tiles.halves == 2       ? tile_kernel<2, 0>
                        : tiles.halves == 3       ? tile_kernel<3, 0>
                                                  : tile_kernel<4, 0>;
    const dim3 grid(grid_size(count), grid_size(a.heads));
    launch(kernel, grid, dim3(kTileThreads), tiles.end, tiles);
    return;
  }
  const Ordered s{a, windows, WindowLayout::of(a.window, 1)};
  const dim3 grid(grid_size(count), grid_size(a.heads),
                  grid_size(divide_up(s.layout.positions, kQueries)));
  const auto kernel = a.head_dim <= 12   ? ordered_kernel<3>
                      : a.head_dim <= 16 ? ordered_kernel<4>
                      : a.head_dim <= 32 ? ordered_kernel<8>
                                         : ordered_kernel<16>;
  launch(kernel, grid, dim3(kQueries), s.layout.end(), s);
}

}  // namespace cuda
}  // namespace spr2q

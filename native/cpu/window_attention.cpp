// Fast window attention, float and on codes. One task per window; per head q^T, k and v are packed
// (36 KiB at 256 positions of 12), then each block of queries runs three passes over its keys:
// logits (products), weights (weigh), sum of values (mix). The float op works in base 2: log2 e is
// folded into q, the bias and the mask. The op on codes keeps ops.hpp's order of operations; its
// sums are exact in float32 up to 2^24, and beyond that wide_mix sums in int64.
#include "levels.hpp"
#include "neon_window_codes.hpp"
#include "window_codes.hpp"
#include "window_tile.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

// S: logits of codes on the grid of exponents -> squared codes; see core/exponent.hpp.
SPR2Q_PASS void weigh_on_grid(int64_t bits, int64_t keys, const VecF* largest, float* S,
                              VecF* total) {
  const VecF levels = splat(level_count(bits));
  for (int v = 0; v < kVectors; ++v) {
    VecF sum = splat(0.0f);
    for (int64_t j = 0; j < keys; ++j) {
      float* at = S + j * kBlock + v * kLanes;
      const VecF shifted = splat(kRoundingMagic) + (largest[v] - load(at));
      const VecF index = min(shifted, splat(kGridEnd)) - splat(kRoundingMagic);
      const VecF code = round_even(levels * exp2_lanes(index * splat(-1.0f / kGridSteps)));
      const VecF square = code * code;
      sum = sum + square;
      store(at, square);
    }
    total[v] = sum;
  }
}

// S: logits -> weights, by the mode; returns the weights' sum per query. Float op: S - largest is
// already an exponent of 2 (factor = 1); codes: it is multiplied by `factor` first.
template <bool Scaled>
SPR2Q_PASS void weigh(int64_t mode, const float* bounds, int64_t bits, float factor, int64_t keys,
                  const VecF* largest, float* S, VecF* total, VecF* share) {
  const VecF levels = splat(level_count(bits));
  for (int v = 0; v < kVectors; ++v) {
    VecF sum = splat(0.0f);
    if (mode == kHalfExponent) {
      for (int64_t j = 0; j < keys; ++j) {
        VecF x = load(S + j * kBlock + v * kLanes) - largest[v];
        if (Scaled) x = x * splat(factor);
        const VecF code = round_even(levels * exp2_lanes(x));
        const VecF square = code * code;
        sum = sum + square;
        store(S + j * kBlock + v * kLanes, square);
      }
      total[v] = sum;
      share[v] = splat(1.0f) / sum;
      continue;
    }
    for (int64_t j = 0; j < keys; ++j) {
      VecF x = load(S + j * kBlock + v * kLanes) - largest[v];
      if (Scaled) x = x * splat(factor);
      const VecF weight = exp2_lanes<Scaled>(x);
      sum = sum + weight;
      store(S + j * kBlock + v * kLanes, weight);
    }
    total[v] = sum;
    share[v] = splat(1.0f) / sum;
    if (mode == kFloat) continue;
    const Grid grid = grid_between(bounds[0], bounds[1], bits);
    const VecF inverse = splat(grid.inverse), step = splat(grid.step), lower = splat(grid.lower);
    sum = splat(0.0f);
    for (int64_t j = 0; j < keys; ++j) {
      const VecF p = load(S + j * kBlock + v * kLanes) * share[v];
      const VecF u = min(max((p - lower) * inverse, splat(0.0f)), levels);
      const VecF weight = fma(step, round_even(u), lower);
      sum = sum + weight;
      store(S + j * kBlock + v * kLanes, weight);
    }
    total[v] = sum;
    share[v] = splat(1.0f);
  }
}

// Softmax of the logits in S (base 2 over `power`) into rows of `to`: calibration only.
void keep_softmax(const float* S, const VecF* largest, float power, int64_t keys, int64_t count,
                  float* to) {
  float top[kBlock];
  for (int v = 0; v < kVectors; ++v) store(top + v * kLanes, largest[v]);
  for (int64_t i = 0; i < count; ++i) {
    float sum = 0;
    for (int64_t j = 0; j < keys; ++j) {
      sum += to[i * keys + j] = exp2_shared((S[j * kBlock + i] - top[i]) * power);
    }
    for (int64_t j = 0; j < keys; ++j) to[i * keys + j] /= sum;
  }
}

// A task's memory: per window its place, per head the packed operands, per block S and the result.
template <int D>
struct Memory {
  Place place;
  float *columns, *k, *v, *S, *out;

  explicit Memory(int64_t keys) {
    const int64_t padded = round_up(keys, kBlock);
    const int64_t tile = round_up(keys, kKeyGroup) * kBlock;
    float* next = scratch<float>(
        1, tile + D * (padded + kBlock + 2 * keys) + Place::floats(keys) + 3 * 16);
    S = next;
    out = S + tile;
    columns = out + D * kBlock;
    k = columns + D * padded;
    v = k + round_up(D * keys, 16);
    place.lay_out(v + round_up(D * keys, 16), keys);
  }
};

template <int D>
void attend(const WindowAttention& a, const BiasLayout& layout, const float* bias,
            const int32_t* offset, int64_t window, float factor) {
  const Windows& windows = layout.windows;
  const int64_t keys = windows.positions(), padded = round_up(keys, kBlock);
  Memory<D> m(keys);
  m.place.move_to(windows, window, a.heads * a.head_dim, factor);
  for (int64_t head = 0; head < a.heads; ++head) {
    const int64_t column = head * a.head_dim;
    pack_columns<D>(a.q.data + column, m.place.at, keys, padded, a.head_dim, factor, m.columns);
    pack_rows<D>(a.k.data + column, m.place.at, keys, a.head_dim, m.k);
    pack_rows<D>(a.v.data + column, m.place.at, keys, a.head_dim, m.v);
    for (int64_t p = 0; p < keys; p += kBlock) {
      const Start start(layout, bias, offset, m.place, head, p);
      VecF largest[kVectors], total[kVectors], share[kVectors];
      if (m.place.masked) {
        logits<D, true>(m.columns + p, m.k, keys, m.S, largest, start);
      } else {
        logits<D, false>(m.columns + p, m.k, keys, m.S, largest, start);
      }
      if (a.probabilities) {
        const int64_t row = (window * a.heads + head) * keys + p;
        keep_softmax(m.S, largest, a.probability_codes == kHalfExponent ? 2.0f : 1.0f, keys,
                     keys - p < kBlock ? keys - p : kBlock, a.probabilities.data + row * keys);
      }
      weigh<false>(a.probability_codes, a.probability_bounds.data, a.bits, 1.0f, keys, largest, m.S,
                   total, share);
      mix<D>(m.S, m.v, keys, m.out);
      for (int d = 0; d < D; ++d) {
        for (int v = 0; v < kVectors; ++v) {
          float* at = m.out + d * kBlock + v * kLanes;
          store(at, load(at) * share[v]);
        }
      }
      unpack_block<D>(m.out, m.place.at, p, keys, a.head_dim, a.y.data + column);
    }
  }
}

// sums(D, kBlock) and totals of exact integers too large for float32, turned into their quotient.
template <int D>
void wide_mix(const float* S, const float* rows, int64_t keys, float* out) {
  for (int i = 0; i < kBlock; ++i) {
    int64_t total = 0;
    for (int64_t j = 0; j < keys; ++j) total += static_cast<int64_t>(S[j * kBlock + i]);
    for (int d = 0; d < D; ++d) {
      int64_t sum = 0;
      for (int64_t j = 0; j < keys; ++j) {
        sum += static_cast<int64_t>(S[j * kBlock + i]) * static_cast<int64_t>(rows[j * D + d]);
      }
      out[d * kBlock + i] =
          static_cast<float>(static_cast<double>(sum) / static_cast<double>(total));
    }
  }
}

// Where the results of a block on codes go: y as it is, or its codes.
struct Output {
  const CodedWindowAttention& a;
  Levels levels;

  explicit Output(const CodedWindowAttention& args) : a(args) {
    if (!a.y_codes) return;
    const float lower = a.y_lower.data[0], upper = a.y_upper.data[0];
    levels = Levels(a.y_granularity == kColumn ? grid_from(0.0f, upper, a.y_bits)
                                               : grid_between(lower, upper, a.y_bits));
  }
  VecF lower_of(int64_t column) const {
    return splat(a.y_lower.data[a.y_granularity == kColumn ? column : 0]);
  }
  // out(D, kBlock) of the block's first query p and a head's first column.
  template <int D>
  void put(float* out, const int64_t* at, int64_t p, int64_t keys, int64_t column) const {
    if (!a.y_codes) return unpack_block<D>(out, at, p, keys, a.head_dim, a.y.data + column);
    for (int64_t d = 0; d < a.head_dim; ++d) {
      const VecF lower = lower_of(column + d);
      for (int v = 0; v < kVectors; ++v) {
        float* values = out + d * kBlock + v * kLanes;
        store(values, codes_of(load(values), lower, levels, a.y_bits == 1));
      }
    }
    unpack_block<D>(out, at, p, keys, a.head_dim, a.y_codes.data + column);
  }
};

struct CodeGrids {
  float factor;  // of logits
  VecF scale, key_scale, step, lower;
  bool half, grid;  // half exponents; those on the grid of core/exponent.hpp
  bool exact;       // sums of half-exponent weights times codes stay within 2^24

  explicit CodeGrids(const CodedWindowAttention& a) {
    const Grid q = grid_between(a.grid.data[0], a.grid.data[1], a.code_bits);
    const Grid k = grid_between(a.grid.data[2], a.grid.data[3], a.code_bits);
    const Grid v = grid_between(a.grid.data[4], a.grid.data[5], a.code_bits);
    half = a.probability_codes == kHalfExponent;
    grid = half && a.bits <= kGridBits;
    factor = grid ? kGridFactor : 1.0f;
    scale = splat(q.step * k.step * factor);
    key_scale = splat(q.lower * k.step * factor);
    step = splat(v.step);
    lower = splat(v.lower);
    const int64_t code = (1 << a.bits) - 1, value = (1 << a.code_bits) - 1;
    exact = code * code * value * a.window * a.window <= (1 << 24);
  }
};

// S = fma(S, sum q_q q_k, fma(T, sum q_k, bias + mask)), the largest per query in `top`.
template <int D, bool kMasked>
SPR2Q_PASS void code_logits(const float* columns, const float* rows, const float* key_sum,
                            int64_t keys, float* S, VecF* top, const CodeGrids& grids,
                            const Start& from) {
  const Start start = from;
  const VecF scale = grids.scale, key_scale = grids.key_scale;
  products<D>(columns, start.padded, rows, keys, S, top,
              [](int64_t, int) { return splat(0.0f); },
              [&](int64_t j, int v, VecF sum) {
                const VecF rest = start.template at<kMasked>(j, v);
                return fma(scale, sum, fma(key_scale, splat(key_sum[j]), rest));
              });
}

#if defined(__AVX512VNNI__)
// N blocks of queries from p on, of one head.
template <int N, int D>
void attend_blocks(const CodeTile<D>& tile, const Output& output, const CodeGrids& grids,
                   const Start (&start)[N], const Memory<D>& m, float* more, int64_t p,
                   int64_t column, const SquareTable& table, bool whole) {
  float* const all[2] = {m.S, more};
  float* S[N];
  for (int b = 0; b < N; ++b) S[b] = all[b];
  VecF top[N];
  if (m.place.masked) {
    tile.template logits<N, true>(p, grids.scale, grids.key_scale, S, start, top);
  } else {
    tile.template logits<N, false>(p, grids.scale, grids.key_scale, S, start, top);
  }
  for (int b = 0; b < N; ++b) {
    const VecF total = tile.look_up(S[b], top[b], table);
    tile.mix(total, grids.step, grids.lower, m.out);
    if constexpr (D >= 8 && D <= 16) {
      if (whole && output.a.y_codes) {
        const auto lower = [&](int d) { return output.lower_of(column + d); };
        CodeTile<D>::put_codes(m.out, m.place.at + p + b * kBlock, output.levels,
                               output.a.y_bits == 1, lower, output.a.y_codes.data + column);
        continue;
      }
    }
    output.template put<D>(m.out, m.place.at, p + b * kBlock, tile.keys, column);
  }
}

// Asks for the operands of positions [begin, end) of the window to the right, which is most often the
// next one: each window's rows come from beyond the caches, and its first head would wait for them.
static inline void fetch_next(const CodedWindowAttention& a, const int64_t* at, int64_t begin,
                              int64_t end) {
  const int64_t right = a.window * a.heads * a.head_dim;
  for (int64_t p = begin; p < end; ++p) {
    __builtin_prefetch(a.q.data + at[p] + right, 0, 2);
    __builtin_prefetch(a.k.data + at[p] + right, 0, 2);
    __builtin_prefetch(a.v.data + at[p] + right, 0, 2);
  }
}

// The case that serving runs, in integers; see window_codes.hpp.
template <int D>
void attend_bytes(const CodedWindowAttention& a, const Output& output, const CodeGrids& grids,
                  const BiasLayout& layout, const float* bias, const int32_t* offset,
                  int64_t window) {
  const int64_t keys = layout.keys;
  Memory<D> m(keys);
  CodeTile<D> tile(keys, scratch<uint32_t>(2, CodeTile<D>::words(keys)));
  float* more = scratch<float>(3, round_up(keys, 4) * kBlock);
  const SquareTable& table = square_table(a.bits);
  m.place.move_to(layout.windows, window, a.heads * a.head_dim, grids.factor);
  const bool whole = tile.whole(a, m.place.at);
  for (int64_t head = 0; head < a.heads; ++head) {
    const int64_t column = head * a.head_dim;
    if (whole) tile.template pack<true>(a, m.place.at, column);
    else tile.template pack<false>(a, m.place.at, column);
    fetch_next(a, m.place.at, head * keys / a.heads, (head + 1) * keys / a.heads);
    const auto start = [&](int64_t p) { return Start(layout, bias, offset, m.place, head, p); };
    int64_t p = 0;
    for (; p + kBlock < keys; p += 2 * kBlock) {
      attend_blocks<2, D>(tile, output, grids, {start(p), start(p + kBlock)}, m, more, p, column,
                          table, whole);
    }
    if (p < keys) {
      attend_blocks<1, D>(tile, output, grids, {start(p)}, m, more, p, column, table, whole);
    }
  }
}
#elif defined(SPR2Q_NEON)
template <int D>
void attend_bytes(const CodedWindowAttention& a, const Output& output, const CodeGrids& grids,
                  const BiasLayout& layout, const float* bias, const int32_t* offset,
                  int64_t window) {
  const int64_t keys = layout.keys;
  Memory<D> m(keys);
  CodeTile<D> tile(keys, scratch<uint32_t>(2, CodeTile<D>::words(keys)));
  const SquareTable& table = square_table(a.bits);
  m.place.move_to(layout.windows, window, a.heads * a.head_dim, grids.factor);
  for (int64_t head = 0; head < a.heads; ++head) {
    const int64_t column = head * a.head_dim;
    if (a.head_dim == D) {
      tile.template pack<true>(a, m.place.at, column);
    } else {
      tile.template pack<false>(a, m.place.at, column);
    }
    for (int64_t p = 0; p < keys; p += kBlock) {
      const Start start(layout, bias, offset, m.place, head, p);
      const auto top =
          m.place.masked ? tile.template logits<true>(p, grids.scale, grids.key_scale, m.S, start)
                         : tile.template logits<false>(p, grids.scale, grids.key_scale, m.S, start);
      tile.mix(tile.look_up(m.S, top, table), grids.step, grids.lower, m.out);
      output.template put<D>(m.out, m.place.at, p, keys, column);
    }
  }
}
#endif

template <int D>
void attend_codes(const CodedWindowAttention& a, const Output& output, const CodeGrids& grids,
                  const BiasLayout& layout,
                  const float* bias, const int32_t* offset, int64_t window) {
#if defined(__AVX512VNNI__) || defined(SPR2Q_NEON)
  if (grids.grid && grids.exact && a.code_bits <= kTileCodeBits && layout.keys <= kMostKeys &&
      has_byte_tables()) {
    attend_bytes<D>(a, output, grids, layout, bias, offset, window);
    return;
  }
#endif
  const int64_t keys = layout.keys, padded = round_up(keys, kBlock);
  const bool wide = grids.half && !grids.exact;
  Memory<D> m(keys);
  float* key_sum = scratch<float>(2, keys);
  m.place.move_to(layout.windows, window, a.heads * a.head_dim, grids.factor);
  for (int64_t head = 0; head < a.heads; ++head) {
    const int64_t column = head * a.head_dim;
    pack_columns<D>(a.q.data + column, m.place.at, keys, padded, a.head_dim, 1.0f, m.columns);
    pack_rows<D>(a.k.data + column, m.place.at, keys, a.head_dim, m.k);
    pack_rows<D>(a.v.data + column, m.place.at, keys, a.head_dim, m.v);
    for (int64_t j = 0; j < keys; ++j) {
      float sum = 0;
      for (int d = 0; d < D; ++d) sum += m.k[j * D + d];
      key_sum[j] = sum;
    }
    for (int64_t p = 0; p < keys; p += kBlock) {
      const Start start(layout, bias, offset, m.place, head, p);
      VecF largest[kVectors], total[kVectors], share[kVectors];
      if (m.place.masked) {
        code_logits<D, true>(m.columns + p, m.k, key_sum, keys, m.S, largest, grids, start);
      } else {
        code_logits<D, false>(m.columns + p, m.k, key_sum, keys, m.S, largest, grids, start);
      }
      if (grids.grid) {
        weigh_on_grid(a.bits, keys, largest, m.S, total);
      } else {
        weigh<true>(a.probability_codes, a.probability_bounds.data, a.bits,
                    grids.half ? kHalfLog2E : kLog2E, keys, largest, m.S, total, share);
      }
      if (wide) {
        wide_mix<D>(m.S, m.v, keys, m.out);
      } else {
        mix<D>(m.S, m.v, keys, m.out);
      }
      for (int d = 0; d < D; ++d) {
        for (int v = 0; v < kVectors; ++v) {
          float* at = m.out + d * kBlock + v * kLanes;
          const VecF sum = load(at);
          if (a.probability_codes == kUniform) {
            store(at, fma(grids.step, sum, grids.lower * total[v]));
          } else {
            const VecF mean = !grids.half ? sum * share[v] : wide ? sum : sum / total[v];
            store(at, fma(grids.step, mean, grids.lower));
          }
        }
      }
      output.template put<D>(m.out, m.place.at, p, keys, column);
    }
  }
}

}  // namespace

void window_attention(const WindowAttention& a) {
  const BiasLayout layout({a.height, a.width, a.window, a.shift});
  const float factor = a.probability_codes == kHalfExponent ? kHalfLog2E : kLog2E;
  float* bias = scratch<float>(0, a.heads * layout.head_size + layout.keys);
  int32_t* offset = reinterpret_cast<int32_t*>(bias + a.heads * layout.head_size);
  layout.spread(a.bias_table.data, a.heads, factor, bias);
  layout.offsets(offset);
  parallel_for(a.batch * layout.windows.per_sample(), 1, [&](int64_t window, int64_t) {
    SPR2Q_BY_HEAD_DIM(a.head_dim, attend, a, layout, bias, offset, window, factor);
  });
}

void coded_window_attention(const CodedWindowAttention& a) {
  const BiasLayout layout({a.height, a.width, a.window, a.shift});
  float* bias = scratch<float>(0, a.heads * layout.head_size + layout.keys);
  int32_t* offset = reinterpret_cast<int32_t*>(bias + a.heads * layout.head_size);
  const CodeGrids grids(a);
  const Output output(a);
  layout.spread(a.bias_table.data, a.heads, grids.factor, bias);
  layout.offsets(offset);
  parallel_for(a.batch * layout.windows.per_sample(), 1, [&](int64_t window, int64_t) {
    SPR2Q_BY_HEAD_DIM(a.head_dim, attend_codes, a, output, grids, layout, bias, offset, window);
  });
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q

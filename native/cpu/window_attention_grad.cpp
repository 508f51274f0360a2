// Gradients of window attention. Per block of queries the forward's logits are recomputed into S
// and dP_j = gy . v_j goes into T; then S becomes P (what multiplied v) and T becomes dl, and the
// two turn into the gradients: gq = sum_j T_j k_j with queries in the lanes (mix), gk_j and gv_j as
// sums over the block's queries of S, T times rows of q and gy (outer), with head dimensions in the
// lanes. The bias gradient is added in the layout the bias is read in. Windows are cut into
// kPartials runs, each with its own bias gradient, added in order: same bits on any thread count.
#include "../core/grid.hpp"
#include "window_tile.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

constexpr int kPartials = 8;  // runs of windows: enough to balance a few threads, little to add up

template <int D>
struct Memory {
  static constexpr int kWidth = (D + kLanes - 1) / kLanes * kLanes;  // floats per row of outer()
  Place place;
  float *S, *T, *out, *q_columns, *gy_columns, *k, *v, *q_rows, *gy_rows, *gk, *gv;

  explicit Memory(int64_t keys) {
    const int64_t padded = round_up(keys, kBlock), packed = round_up(D * keys, 16);
    const int64_t tile = round_up(keys, kKeyGroup) * kBlock;
    float* next = scratch<float>(1, 2 * tile + D * kBlock + 2 * D * padded + 2 * packed +
                                        4 * kWidth * padded + Place::floats(keys));
    const auto take = [&](int64_t floats) {
      float* at = next;
      next += floats;
      return at;
    };
    S = take(tile);
    T = take(tile);
    out = take(D * kBlock);
    q_columns = take(D * padded);
    gy_columns = take(D * padded);
    q_rows = take(kWidth * padded);
    gy_rows = take(kWidth * padded);
    gk = take(kWidth * padded);
    gv = take(kWidth * padded);
    k = take(packed);
    v = take(packed);
    place.lay_out(next, keys);
  }
};

// Rows of kWidth floats, zeros behind head_dim and behind the last position.
template <int D>
SPR2Q_PASS void pack_wide(const float* from, const int64_t* at, int64_t keys, int64_t padded,
                          int64_t head_dim, float* to) {
  constexpr int kWidth = Memory<D>::kWidth;
  for (int64_t p = 0; p < padded; ++p) {
    const int64_t here = p < keys ? head_dim : 0;
    for (int d = 0; d < kWidth; ++d) to[p * kWidth + d] = d < here ? from[at[p] + d] : 0.0f;
  }
}

// sums[j] += sum over the block's queries i of S[j][i] rows[i]. Goes by groups of keys: S and sums
// have room behind the last key, whose contents mean nothing.
template <int D>
SPR2Q_PASS void outer(const float* S, const float* rows, int64_t keys, float* sums) {
  constexpr int kWidth = Memory<D>::kWidth, kPieces = kWidth / kLanes;
  constexpr int kKeys = kPieces <= 2 ? kKeyGroup : 1;
  for (int64_t j = 0; j < keys; j += kKeys) {
    VecF sum[kKeys][kPieces];
    for (int i = 0; i < kKeys; ++i) {
      for (int c = 0; c < kPieces; ++c) sum[i][c] = load(sums + (j + i) * kWidth + c * kLanes);
    }
    for (int p = 0; p < kBlock; ++p) {
      VecF row[kPieces];
      for (int c = 0; c < kPieces; ++c) row[c] = load(rows + p * kWidth + c * kLanes);
      for (int i = 0; i < kKeys; ++i) {
        const VecF weight = splat(S[(j + i) * kBlock + p]);
        for (int c = 0; c < kPieces; ++c) sum[i][c] = fma(weight, row[c], sum[i][c]);
      }
    }
    for (int i = 0; i < kKeys; ++i) {
      for (int c = 0; c < kPieces; ++c) store(sums + (j + i) * kWidth + c * kLanes, sum[i][c]);
    }
  }
}

// What one query vector's softmax needs after the first sweep over its keys.
struct Sums {
  VecF share, code_share, mean;  // 1 / sum e, 1 / sum q^2, sum_j p_j g_j
};

struct Quantiser {
  int64_t mode;
  Grid grid;
  VecF glower, gupper;  // sums over one window
};

inline VecF half_square(VecF h, VecF levels) {
  const VecF code = round_even(levels * h);
  return code * code;
}

// First sweep: S = e (kHalfExponent: its root h), sums of it and of its product with T.
inline Sums first_sweep(const Quantiser& quantiser, VecF largest, int64_t keys, float* S,
                        const float* T) {
  VecF sum = splat(0.0f), squares = splat(0.0f), mean = splat(0.0f);
  const VecF levels = splat(quantiser.grid.levels);
  for (int64_t j = 0; j < keys; ++j) {
    const VecF h = exp2_lanes(load(S + j * kBlock) - largest);
    const VecF e = quantiser.mode == kHalfExponent ? h * h : h;
    if (quantiser.mode == kHalfExponent) squares = squares + half_square(h, levels);
    sum = sum + e;
    mean = fma(e, load(T + j * kBlock), mean);
    store(S + j * kBlock, h);
  }
  const VecF share = splat(1.0f) / sum;
  if (quantiser.mode != kUniform) return {share, splat(1.0f) / squares, mean * share};
  mean = splat(0.0f);
  const VecF lower = splat(quantiser.grid.lower), upper = splat(quantiser.grid.upper);
  for (int64_t j = 0; j < keys; ++j) {
    const VecF p = load(S + j * kBlock) * share, zero = splat(0.0f);
    const VecF g = where_le(lower, p, where_le(p, upper, load(T + j * kBlock), zero), zero);
    mean = fma(p, g, mean);
  }
  return {share, share, mean};
}

// Second sweep at one key: S = P, T = dl; returns dl.
inline VecF second_sweep(Quantiser& quantiser, const Sums& sums, float* S, float* T) {
  const VecF h = load(S), g = load(T), zero = splat(0.0f);
  VecF p = h * sums.share, slope = g, weight;
  if (quantiser.mode == kHalfExponent) {
    weight = half_square(h, splat(quantiser.grid.levels)) * sums.code_share;
    p = h * p;
  } else if (quantiser.mode == kUniform) {
    const Grid& grid = quantiser.grid;
    const VecF lower = splat(grid.lower), upper = splat(grid.upper), levels = splat(grid.levels);
    const VecF u = min(max((p - lower) * splat(grid.inverse), zero), levels);
    const VecF code = round_even(u), error = (code - u) / levels * g;
    quantiser.glower = quantiser.glower + (where_le(p, lower, g, zero) - error);
    quantiser.gupper = quantiser.gupper + (where_le(upper, p, g, zero) + error);
    slope = where_le(lower, p, where_le(p, upper, g, zero), zero);
    weight = fma(splat(grid.step), code, lower);
  } else {
    weight = p;
  }
  const VecF dl = p * (slope - sums.mean);
  store(S, weight);
  store(T, dl);
  return dl;
}

// Both sweeps over one vector of queries; dl is added to the bias gradient on the way. The second
// goes down the window's columns: keys side by side share entries of the bias table one lane apart,
// and a load that overlaps a store just made would have to wait for it.
SPR2Q_PASS void sweep(Quantiser& kept, VecF largest, int64_t window, float* S, float* T,
                      const int32_t* offset, float* gtable) {
  Quantiser quantiser = kept;
  const Sums sums = first_sweep(quantiser, largest, window * window, S, T);
  for (int64_t x = 0; x < window; ++x) {
    for (int64_t j = x; j < window * window; j += window) {
      const VecF dl = second_sweep(quantiser, sums, S + j * kBlock, T + j * kBlock);
      store(gtable + offset[j], load(gtable + offset[j]) + dl);
    }
  }
  kept = quantiser;
}

// T_j = gy . v_j.
template <int D>
SPR2Q_PASS void slopes(const float* columns, int64_t padded, const float* rows, int64_t keys,
                       float* T) {
  VecF unused[kVectors];
  products<D>(columns, padded, rows, keys, T, unused, [](int64_t, int) { return splat(0.0f); },
              [](int64_t, int, VecF sum) { return sum; });
}

template <int D>
void gradients(const WindowAttentionGrad& a, const BiasLayout& layout, const float* bias,
               const int32_t* offset, int64_t window, float factor, Quantiser& quantiser,
               float* gbias) {
  const Windows& windows = layout.windows;
  const int64_t keys = windows.positions(), padded = round_up(keys, kBlock);
  Memory<D> m(keys);
  m.place.move_to(windows, window, a.heads * a.head_dim, factor);
  const int64_t* at = m.place.at;
  for (int64_t head = 0; head < a.heads; ++head) {
    const int64_t column = head * a.head_dim;
    pack_columns<D>(a.q.data + column, at, keys, padded, a.head_dim, factor, m.q_columns);
    pack_columns<D>(a.gy.data + column, at, keys, padded, a.head_dim, 1.0f, m.gy_columns);
    pack_rows<D>(a.k.data + column, at, keys, a.head_dim, m.k);
    pack_rows<D>(a.v.data + column, at, keys, a.head_dim, m.v);
    pack_wide<D>(a.q.data + column, at, keys, padded, a.head_dim, m.q_rows);
    pack_wide<D>(a.gy.data + column, at, keys, padded, a.head_dim, m.gy_rows);
    std::memset(m.gk, 0, sizeof(float) * static_cast<size_t>(m.kWidth * padded));
    std::memset(m.gv, 0, sizeof(float) * static_cast<size_t>(m.kWidth * padded));
    for (int64_t p = 0; p < keys; p += kBlock) {
      const Start start(layout, bias, offset, m.place, head, p);
      VecF largest[kVectors];
      if (m.place.masked) {
        logits<D, true>(m.q_columns + p, m.k, keys, m.S, largest, start);
      } else {
        logits<D, false>(m.q_columns + p, m.k, keys, m.S, largest, start);
      }
      slopes<D>(m.gy_columns + p, padded, m.v, keys, m.T);
      for (int v = 0; v < kVectors; ++v) {
        float *S = m.S + v * kLanes, *T = m.T + v * kLanes;
        float* gtable = gbias + layout.at(head, p / kLanes + v);
        sweep(quantiser, largest[v], windows.window, S, T, offset, gtable);
      }
      mix<D>(m.T, m.k, keys, m.out);
      unpack_block<D>(m.out, at, p, keys, a.head_dim, a.gq.data + column);
      outer<D>(m.T, m.q_rows + p * m.kWidth, keys, m.gk);
      outer<D>(m.S, m.gy_rows + p * m.kWidth, keys, m.gv);
    }
    for (int64_t j = 0; j < keys; ++j) {
      for (int64_t d = 0; d < a.head_dim; ++d) {
        a.gk.data[at[j] + column + d] = m.gk[j * m.kWidth + d];
        a.gv.data[at[j] + column + d] = m.gv[j * m.kWidth + d];
      }
    }
  }
}

}  // namespace

void window_attention_grad(const WindowAttentionGrad& a) {
  const BiasLayout layout({a.height, a.width, a.window, a.shift});
  const float factor = a.probability_codes == kHalfExponent ? kHalfLog2E : kLog2E;
  const int64_t size = a.heads * layout.head_size, count = a.batch * layout.windows.per_sample();
  float* bias = scratch<float>(0, (1 + kPartials) * size + layout.keys);
  float* partial = bias + size;
  int32_t* offset = reinterpret_cast<int32_t*>(partial + kPartials * size);
  layout.spread(a.bias_table.data, a.heads, factor, bias);
  layout.offsets(offset);
  std::memset(partial, 0, sizeof(float) * static_cast<size_t>(kPartials * size));
  const float* bounds = a.probability_bounds.data;
  const bool uniform = a.probability_codes == kUniform;
  const Grid grid =
      grid_between(uniform ? bounds[0] : 0.0f, uniform ? bounds[1] : 1.0f, a.bits);
  double gbounds[kPartials][2] = {};
  parallel_for(kPartials, 1, [&](int64_t run, int64_t) {
    for (int64_t w = run * count / kPartials; w < (run + 1) * count / kPartials; ++w) {
      Quantiser quantiser{a.probability_codes, grid, splat(0.0f), splat(0.0f)};
      SPR2Q_BY_HEAD_DIM(a.head_dim, gradients, a, layout, bias, offset, w, factor, quantiser,
                        partial + run * size);
      gbounds[run][0] += sum(quantiser.glower);
      gbounds[run][1] += sum(quantiser.gupper);
    }
  });
  const int64_t table_size = (2 * a.window - 1) * (2 * a.window - 1) * a.heads;
  std::memset(a.gbias_table.data, 0, sizeof(float) * static_cast<size_t>(table_size));
  for (int run = 0; run < kPartials; ++run) {
    for (int64_t head = 0; head < a.heads; ++head) {
      layout.gather(partial + run * size, a.heads, head, a.gbias_table.data);
    }
  }
  if (!uniform) return;
  double glower = 0, gupper = 0;
  for (int run = 0; run < kPartials; ++run) {
    glower += gbounds[run][0];
    gupper += gbounds[run][1];
  }
  a.gprobability_bounds.data[0] = static_cast<float>(glower);
  a.gprobability_bounds.data[1] = static_cast<float>(gupper);
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q

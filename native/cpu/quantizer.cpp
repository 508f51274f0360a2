// Fast quantiser; shapes, formulas and order of operations as in native/ops/quantizer.cpp, so
// codes and values are equal bit for bit. One sweep per granularity: a tensor and a row have one
// grid in registers, columns read their offsets from a repeated pattern (sweep.hpp). Gradients of
// bounds are summed in float lanes over at most kSumBlock elements, then in double over blocks and
// chunks in order.
#include "../core/bounds.hpp"
#include "levels.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

// Elements summed in float lanes before they go to a double: 256 per lane with AVX-512.
constexpr int64_t kSumBlock = 4096;

static inline int64_t row_grain(int64_t columns) {
  return columns < kSweepGrain ? kSweepGrain / columns : 1;
}

// Calls body(i, lanes, lower, levels) for every vector of the (rows, columns) tensor.
template <class Args, class Body>
static void each_vector(const Args& a, Body body) {
  const float *lowers = a.lower.data, *uppers = a.upper.data;
  const int64_t columns = a.columns, bits = a.bits;
  if (a.granularity == kTensor) {
    const Levels levels(grid_between(lowers[0], uppers[0], bits));
    const VecF lower = splat(lowers[0]);
    sweep_parallel(a.rows * columns,
                   [=](int64_t i, auto lanes) { body(i, lanes, lower, levels); });
  } else if (a.granularity == kRow) {
    parallel_for(a.rows, row_grain(columns), [=](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const Levels levels(grid_between(lowers[row], uppers[row], bits));
        const VecF lower = splat(lowers[row]);
        sweep(row * columns, (row + 1) * columns,
              [=](int64_t i, auto lanes) { body(i, lanes, lower, levels); });
      }
    });
  } else {
    const Levels levels(grid_from(0.0f, uppers[0], bits));
    const Pattern offsets = repeat(lowers, columns, 0);
    parallel_for(a.rows, pattern_grain(columns), [=](int64_t begin, int64_t end) {
      sweep_pattern(offsets.size, begin * columns, end * columns,
                    [=](int64_t i, int64_t j, auto lanes) {
                      body(i, lanes, load(offsets.data + j), levels);
                    });
    });
  }
}

// What one vector adds to the sums of its bounds: gy where clipped, and (round(u) - u) gy.
struct Shares {
  VecF below, above, rounding;
};

template <class Lanes>
static inline Shares differentiate(const QdqGrad& a, int64_t i, Lanes lanes, VecF lower,
                                   VecF upper, const Levels& levels) {
  const VecF x = lanes.load(a.x.data + i), gy = lanes.load(a.gy.data + i), zero = splat(0.0f);
  const VecF u = levels.position(x, lower);
  lanes.store(a.gx.data + i, where_le(lower, x, where_le(x, upper, gy, zero), zero));
  return {where_le(x, lower, gy, zero), where_le(upper, x, gy, zero), (round_even(u) - u) * gy};
}

// Sums over elements [begin, end) of one bound pair; lanes beyond the end carry gy = 0.
struct Sums {
  double below, above, rounding;
};

static Sums differentiate_range(const QdqGrad& a, int64_t begin, int64_t end, const Grid& grid) {
  const Levels levels(grid);
  const VecF lower = splat(grid.lower), upper = splat(grid.upper);
  Sums total = {0, 0, 0};
  for (int64_t block = begin; block < end; block += kSumBlock) {
    Shares sums = {splat(0.0f), splat(0.0f), splat(0.0f)};
    sweep(block, end - block < kSumBlock ? end : block + kSumBlock, [&](int64_t i, auto lanes) {
      const Shares one = differentiate(a, i, lanes, lower, upper, levels);
      sums = {sums.below + one.below, sums.above + one.above, sums.rounding + one.rounding};
    });
    total.below += sum(sums.below);
    total.above += sum(sums.above);
    total.rounding += sum(sums.rounding);
  }
  return total;
}

static void store_bounds(const QdqGrad& a, int64_t at, const Sums& sums) {
  const double e = sums.rounding / level_count(a.bits);
  a.glower.data[at] = static_cast<float>(sums.below - e);
  a.gupper.data[at] = static_cast<float>(sums.above + e);
}

static void tensor_grad(const QdqGrad& a) {
  const int64_t n = a.rows * a.columns, chunks = (n + kSweepGrain - 1) / kSweepGrain;
  const Grid grid = grid_between(a.lower.data[0], a.upper.data[0], a.bits);
  Sums* partials = scratch<Sums>(0, chunks > 0 ? chunks : 1);
  parallel_for(n, kSweepGrain, [&](int64_t begin, int64_t end) {
    partials[begin / kSweepGrain] = differentiate_range(a, begin, end, grid);
  });
  Sums total = {0, 0, 0};
  for (int64_t i = 0; i < chunks; ++i) {
    total.below += partials[i].below;
    total.above += partials[i].above;
    total.rounding += partials[i].rounding;
  }
  store_bounds(a, 0, total);
}

static void row_grad(const QdqGrad& a) {
  parallel_for(a.rows, row_grain(a.columns), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const Grid grid = grid_between(a.lower.data[row], a.upper.data[row], a.bits);
      store_bounds(a, row,
                   differentiate_range(a, row * a.columns, (row + 1) * a.columns, grid));
    }
  });
}

static void column_grad(const QdqGrad& a) {
  const int64_t columns = a.columns, grain = pattern_grain(columns);
  const int64_t chunks = (a.rows + grain - 1) / grain, room = chunks > 0 ? chunks : 1;
  const float range = a.upper.data[0];
  const Levels levels(grid_from(0.0f, range, a.bits));
  const Pattern offsets = repeat(a.lower.data, columns, 0);
  float* clipped = scratch<float>(1, room * offsets.size);  // one sum per place of the pattern
  Sums* partials = scratch<Sums>(2, room);
  parallel_for(a.rows, grain, [&](int64_t begin, int64_t end) {
    float* sums = clipped + begin / grain * offsets.size;
    std::memset(sums, 0, static_cast<size_t>(offsets.size) * sizeof(float));
    VecF above = splat(0.0f), rounding = splat(0.0f);
    sweep_pattern(offsets.size, begin * columns, end * columns,
                  [&](int64_t i, int64_t j, auto lanes) {
                    const VecF lower = load(offsets.data + j);
                    const Shares one =
                        differentiate(a, i, lanes, lower, lower + splat(range), levels);
                    store(sums + j, load(sums + j) + (one.below + one.above));
                    above = above + one.above;
                    rounding = rounding + one.rounding;
                  });
    partials[begin / grain] = {0, sum(above), sum(rounding)};
  });
  double above = 0, rounding = 0;
  for (int64_t i = 0; i < chunks; ++i) {
    above += partials[i].above;
    rounding += partials[i].rounding;
  }
  a.gupper.data[0] = static_cast<float>(above + rounding / level_count(a.bits));
  for (int64_t c = 0; c < columns; ++c) {
    double total = 0;
    for (int64_t i = c; i < chunks * offsets.size; i += columns) total += clipped[i];
    a.glower.data[c] = static_cast<float>(total);
  }
}

}  // namespace

void quantize(const Quantize& a) {
  const float* x = a.x.data;
  uint8_t* codes = a.codes.data;
  if (a.bits == 1) {
    each_vector(a, [=](int64_t i, auto lanes, VecF lower, const Levels& levels) {
      store_codes_of<true>(lanes, codes + i, lanes.load(x + i), lower, levels);
    });
    return;
  }
  each_vector(a, [=](int64_t i, auto lanes, VecF lower, const Levels& levels) {
    store_codes_of<false>(lanes, codes + i, lanes.load(x + i), lower, levels);
  });
}

void dequantize(const Dequantize& a) {
  const uint8_t* codes = a.codes.data;
  float* y = a.y.data;
  each_vector(a, [=](int64_t i, auto lanes, VecF lower, const Levels& levels) {
    lanes.store(y + i, levels.value(lanes.load_codes(codes + i), lower));
  });
}

void qdq(const Qdq& a) {
  const float* x = a.x.data;
  float* y = a.y.data;
  each_vector(a, [=](int64_t i, auto lanes, VecF lower, const Levels& levels) {
    lanes.store(y + i, levels.value(levels.code(lanes.load(x + i), lower), lower));
  });
}

void qdq_grad(const QdqGrad& a) {
  if (a.granularity == kTensor) return tensor_grad(a);
  if (a.granularity == kRow) return row_grad(a);
  column_grad(a);
}

void quantize_weights(const QuantizeWeights& a) {
  for (int64_t i = 0; i < a.x.size; ++i) {
    quantize(a.quantize(i));
    dequantize(a.dequantize(i));
  }
}
void quantize_weights_grad(const QuantizeWeightsGrad& a) {
  for (int64_t i = 0; i < a.x.size; ++i) qdq_grad(a.weight(i));
}

void separate_bounds(const SeparateBounds& a) {
  for (int64_t i = 0; i < a.upper.size; ++i) {
    const F32 lower = a.lower[i], upper = a.upper[i];
    for (int64_t k = 0; k < upper.size; ++k) upper.data[k] = separated(lower.data[k], upper.data[k]);
  }
  for (int64_t i = 0; i < a.ranges.size; ++i) {
    const F32 ranges = a.ranges[i];
    for (int64_t k = 0; k < ranges.size; ++k) ranges.data[k] = separated_range(ranges.data[k]);
  }
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q

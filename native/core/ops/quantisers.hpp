// Quantisers, range search and rectifiers. The rules of reading are in ../ops.hpp.
#pragma once
#include "common.hpp"

namespace spr2q {

#define SPR2Q_QUANTISER_CHECK                                              \
  SPR2Q_NEED(rows >= 0 && columns > 0 && bits >= 1 && bits <= 8);           \
  SPR2Q_NEED(granularity >= kTensor && granularity <= kColumn);             \
  SPR2Q_NEED(lower.size >= bound_count(granularity, rows, columns));        \
  SPR2Q_NEED(upper.size >= upper_count(granularity, rows))

// codes = q of x (Eq. 1), by the formula on top of this file.
struct Quantize {
  F32 x, lower, upper;
  U8 codes;
  int64_t rows, columns, granularity, bits;
  SPR2Q_FIELDS(x, lower, upper, codes, rows, columns, granularity, bits)
  const char* check() const {
    SPR2Q_QUANTISER_CHECK;
    SPR2Q_NEED(x.size >= rows * columns && codes.size >= rows * columns);
    return nullptr;
  }
};
struct Dequantize {
  U8 codes;
  F32 lower, upper, y;
  int64_t rows, columns, granularity, bits;
  SPR2Q_FIELDS(codes, lower, upper, y, rows, columns, granularity, bits)
  const char* check() const {
    SPR2Q_QUANTISER_CHECK;
    SPR2Q_NEED(y.size >= rows * columns && codes.size >= rows * columns);
    return nullptr;
  }
};
// y = dequantize(quantize(x)).
struct Qdq {
  F32 x, lower, upper, y;
  int64_t rows, columns, granularity, bits;
  SPR2Q_FIELDS(x, lower, upper, y, rows, columns, granularity, bits)
  const char* check() const {
    SPR2Q_QUANTISER_CHECK;
    SPR2Q_NEED(y.size >= rows * columns && x.size >= rows * columns);
    return nullptr;
  }
};
// Straight-through gradients (Eq. 8): gx = gy inside the closed interval, else 0; x <= lower feeds
// glower, x >= upper feeds gupper (a tie feeds both gx and the bound), and everywhere
// e = (round(u) - u)/L adds -e*gy to glower and +e*gy to gupper. kColumn: upper = range, so
// glower[c] collects gy where clipped on either side (no e term) and gupper(1), the gradient of the
// range, collects gy above and e*gy everywhere. Sums in double or by blocks, in a fixed order.
struct QdqGrad {
  F32 x, lower, upper, gy, gx, glower, gupper;
  int64_t rows, columns, granularity, bits;
  SPR2Q_FIELDS(x, lower, upper, gy, gx, glower, gupper, rows, columns, granularity, bits)
  const char* check() const {
    SPR2Q_QUANTISER_CHECK;
    SPR2Q_NEED(x.size >= rows * columns && gy.size >= rows * columns && gx.size >= rows * columns);
    SPR2Q_NEED(glower.size >= bound_count(granularity, rows, columns));
    SPR2Q_NEED(gupper.size >= upper_count(granularity, rows));
    return nullptr;
  }
};

// Rows of a weight that has a pair of bounds for each of them.
struct WeightRows {
  int64_t rows, columns, granularity;
};
static inline WeightRows weight_rows(const F32& x, const F32& lower) {
  return {lower.size, x.size / lower.size, lower.size == 1 ? kTensor : kRow};
}

// Codes and values of many weights, one for each place of the lists: weight x[i] has a row for every
// pair of bounds of lower[i] and upper[i] (one pair: kTensor, else kRow), and `bits` as all of them.
struct QuantizeWeights {
  F32List x, lower, upper;
  U8List codes;
  F32List values;
  int64_t bits;
  SPR2Q_FIELDS(x, lower, upper, codes, values, bits)
  Quantize quantize(int64_t i) const {
    const WeightRows r = weight_rows(x[i], lower[i]);
    return {x[i], lower[i], upper[i], codes[i], r.rows, r.columns, r.granularity, bits};
  }
  Dequantize dequantize(int64_t i) const {
    const WeightRows r = weight_rows(x[i], lower[i]);
    return {codes[i], lower[i], upper[i], values[i], r.rows, r.columns, r.granularity, bits};
  }
  const char* check() const {
    SPR2Q_NEED(lower.size == x.size && upper.size == x.size);
    SPR2Q_NEED(codes.size == x.size && values.size == x.size);
    for (int64_t i = 0; i < x.size; ++i) {
      SPR2Q_NEED(lower[i].size > 0 && x[i].size <= kMostListed);
      if (const char* problem = quantize(i).check()) return problem;
      if (const char* problem = dequantize(i).check()) return problem;
    }
    return nullptr;
  }
};
// QdqGrad of each, given the gradients gy of the values.
struct QuantizeWeightsGrad {
  F32List x, lower, upper, gy, gx, glower, gupper;
  int64_t bits;
  SPR2Q_FIELDS(x, lower, upper, gy, gx, glower, gupper, bits)
  QdqGrad weight(int64_t i) const {
    const WeightRows r = weight_rows(x[i], lower[i]);
    return {x[i],      lower[i],  upper[i], gy[i],     gx[i],         glower[i],
            gupper[i], r.rows, r.columns, r.granularity, bits};
  }
  const char* check() const {
    SPR2Q_NEED(lower.size == x.size && upper.size == x.size && gy.size == x.size);
    SPR2Q_NEED(gx.size == x.size && glower.size == x.size && gupper.size == x.size);
    for (int64_t i = 0; i < x.size; ++i) {
      SPR2Q_NEED(lower[i].size > 0 && x[i].size <= kMostListed);
      if (const char* problem = weight(i).check()) return problem;
    }
    return nullptr;
  }
};

// DOBI: of the 100 ranges that shrink about the middle (lower = min + i d, upper = max - i d,
// d = (max-min)/200), the one with the least squared error of Eq. 1, the widest on ties; one_sided:
// lower = min, upper = max - i (max-min)/100. kTensor or kRow; kColumn: lower is GIVEN (offsets)
// and only the range(1) is searched among R (100-i)/100, R = max over columns of (max - lower).
struct Dobi {
  F32 x, lower, upper;
  int64_t rows, columns, granularity, bits, one_sided;
  SPR2Q_FIELDS(x, lower, upper, rows, columns, granularity, bits, one_sided)
  const char* check() const {
    SPR2Q_QUANTISER_CHECK;
    SPR2Q_NEED(rows > 0 && x.size >= rows * columns);
    return nullptr;
  }
};

// In place, after a step of the bounds of any number of quantisers: upper - lower of every pair of
// lower[i](n), upper[i](n) is at least 1e-6 max(1, |lower|, |upper|); every value of ranges[i], the
// range of a kColumn quantiser, is at least 1e-6. Arithmetic in double.
struct SeparateBounds {
  F32List lower, upper, ranges;
  SPR2Q_FIELDS(lower, upper, ranges)
  const char* check() const {
    SPR2Q_NEED(lower.size == upper.size);
    for (int64_t i = 0; i < upper.size; ++i) {
      SPR2Q_NEED(lower[i].size >= upper[i].size && upper[i].size <= kMostListed);
    }
    for (int64_t i = 0; i < ranges.size; ++i) SPR2Q_NEED(ranges[i].size <= kMostListed);
    return nullptr;
  }
};

// One group of rectifiers and its gradients, as the two ops below take each.
struct RectifierGroup {
  F32 weight, a, b, gates, merged;
  int64_t experts, rank, in, out;
};
struct RectifierGroupGrad {
  F32 gmerged, a, b, gates, ga, gb, ggates;
  int64_t experts, rank, in, out;
};
// Columns of a group whose stacked a, or b, has `size` values.
static inline int64_t group_side(int64_t size, int64_t experts, int64_t rank) {
  return experts > 0 ? size / (experts * rank) : 0;
}

// For every group: merged(out,in) = weight + sum_i gates[i] b[i](out,rank) a[i](rank,in), i < experts
// (Eq. 9). Groups have sides of their own, which follow from the sizes of a and b; no experts: a copy.
struct MergeRectifiers {
  F32List weight, a, b, gates, merged;
  int64_t experts, rank;
  SPR2Q_FIELDS(weight, a, b, gates, merged, experts, rank)
  RectifierGroup group(int64_t i) const {
    const int64_t in = experts > 0 ? group_side(a[i].size, experts, rank) : weight[i].size;
    const int64_t out = experts > 0 ? group_side(b[i].size, experts, rank) : 1;
    return {weight[i], a[i], b[i], gates[i], merged[i], experts, rank, in, out};
  }
  const char* check() const {
    SPR2Q_NEED(experts >= 0 && rank > 0 && a.size == weight.size && b.size == weight.size);
    SPR2Q_NEED(gates.size == weight.size && merged.size == weight.size);
    for (int64_t i = 0; i < weight.size; ++i) {
      const RectifierGroup g = group(i);
      SPR2Q_NEED(g.in > 0 && g.out > 0 && g.in <= kMostListed && g.out <= kMostListed);
      SPR2Q_NEED(holds(g.weight.size, g.out, g.in) && g.merged.size >= g.out * g.in);
      SPR2Q_NEED(g.gates.size >= experts && g.out * g.in <= kMostListed);
      SPR2Q_NEED(g.a.size <= kMostListed && g.b.size <= kMostListed);
    }
    return nullptr;
  }
};
// For every group: ga = gates b^T gmerged, gb = gates gmerged a^T, ggates = <gmerged, b a> (Eq. 7 with
// its gate).
struct MergeRectifiersGrad {
  F32List gmerged, a, b, gates, ga, gb, ggates;
  int64_t experts, rank;
  SPR2Q_FIELDS(gmerged, a, b, gates, ga, gb, ggates, experts, rank)
  RectifierGroupGrad group(int64_t i) const {
    return {gmerged[i], a[i], b[i], gates[i], ga[i], gb[i], ggates[i], experts, rank,
            group_side(a[i].size, experts, rank), group_side(b[i].size, experts, rank)};
  }
  const char* check() const {
    SPR2Q_NEED(experts > 0 && rank > 0 && a.size == gmerged.size && b.size == gmerged.size);
    SPR2Q_NEED(gates.size == gmerged.size && ga.size == gmerged.size);
    SPR2Q_NEED(gb.size == gmerged.size && ggates.size == gmerged.size);
    for (int64_t i = 0; i < gmerged.size; ++i) {
      const RectifierGroupGrad g = group(i);
      SPR2Q_NEED(g.in > 0 && g.out > 0 && holds(g.gmerged.size, g.out, g.in));
      SPR2Q_NEED(g.gates.size >= experts && g.ggates.size >= experts);
      SPR2Q_NEED(g.ga.size >= experts * rank * g.in && g.gb.size >= experts * g.out * rank);
      SPR2Q_NEED(g.a.size <= kMostListed && g.b.size <= kMostListed);
    }
    return nullptr;
  }
};

}  // namespace spr2q

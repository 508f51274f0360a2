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

// merged(out,in) = weight + sum_i gates[i] b[i](out,rank) a[i](rank,in), i < experts (Eq. 9).
struct MergeRectifiers {
  F32 weight, a, b, gates, merged;
  int64_t experts, rank, in, out;
  SPR2Q_FIELDS(weight, a, b, gates, merged, experts, rank, in, out)
  const char* check() const {
    SPR2Q_NEED(experts >= 0 && rank > 0 && in > 0 && out > 0);
    SPR2Q_NEED(weight.size >= out * in && merged.size >= out * in && gates.size >= experts);
    SPR2Q_NEED(a.size >= experts * rank * in && b.size >= experts * out * rank);
    return nullptr;
  }
};
// ga = gates b^T gmerged, gb = gates gmerged a^T, ggates = <gmerged, b a> (Eq. 7 with its gate).
struct MergeRectifiersGrad {
  F32 gmerged, a, b, gates, ga, gb, ggates;
  int64_t experts, rank, in, out;
  SPR2Q_FIELDS(gmerged, a, b, gates, ga, gb, ggates, experts, rank, in, out)
  const char* check() const {
    SPR2Q_NEED(experts > 0 && rank > 0 && in > 0 && out > 0);
    SPR2Q_NEED(gmerged.size >= out * in && gates.size >= experts && ggates.size >= experts);
    SPR2Q_NEED(a.size >= experts * rank * in && b.size >= experts * out * rank);
    SPR2Q_NEED(ga.size >= experts * rank * in && gb.size >= experts * out * rank);
    return nullptr;
  }
};

}  // namespace spr2q

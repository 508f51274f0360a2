// How far apart a quantiser's bounds stay: in double, shared by every backend, so that a step leaves
// the same bits everywhere.
#pragma once
#include "shared.hpp"

namespace spr2q {

constexpr double kLeastRange = 1e-6;       // of max(1, |lower|, |upper|)
constexpr double kRangeMargin = 1.0001;    // of a range that is widened: float32 must not undo it

SPR2Q_SHARED double larger(double a, double b) { return a > b ? a : b; }
SPR2Q_SHARED double magnitude(double x) { return x < 0 ? -x : x; }

// The upper bound of a pair where it must be, and a range.
SPR2Q_SHARED float separated(float lower, float upper) {
  const double low = lower, high = upper;
  const double least = kLeastRange * larger(1, larger(magnitude(low), magnitude(high)));
  return high - low < least ? static_cast<float>(low + least * kRangeMargin) : upper;
}
SPR2Q_SHARED float separated_range(float range) {
  return static_cast<float>(larger(range, kLeastRange));
}

}  // namespace spr2q

// How far apart a quantiser's bounds stay: in double, shared by every backend, so that a step leaves
// the same bits everywhere.
#pragma once
#include "ops/quantisers.hpp"
#include "shared.hpp"

namespace spr2q {

constexpr double kLeastRange = 1e-6;       // of max(1, |lower|, |upper|)
constexpr double kRangeMargin = 1.0001;    // of a range that is widened: float32 must not undo it

SPR2Q_SHARED double larger(double a, double b) { return a > b ? a : b; }
SPR2Q_SHARED double magnitude(double x) { return x < 0 ? -x : x; }

// Pair i < a.count of the bounds.
SPR2Q_SHARED void separate_pair(const SeparateBounds& a, int64_t i) {
  float* upper = a.joint ? a.lower.data + 1 : a.upper.data + i;
  const double high = *upper;
  if (a.granularity == kColumn) {
    *upper = static_cast<float>(larger(high, kLeastRange));
    return;
  }
  const double low = a.lower.data[i];
  const double least = kLeastRange * larger(1, larger(magnitude(low), magnitude(high)));
  if (high - low < least) *upper = static_cast<float>(low + least * kRangeMargin);
}

}  // namespace spr2q

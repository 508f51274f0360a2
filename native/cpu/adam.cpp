// Fast Adam step, in place over n values, one pass over parameter, gradient, m and v. The bias
// corrections and 1 - beta are worked out in double once; each value's update runs in float32, in
// the same order on every instruction set (products and sums rounded apart, no fused steps).
#include "simd.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

constexpr int64_t kChunk = 16384;  // values a thread takes at once: 256 KiB read, 192 KiB written

inline VecF load_group(const float* p, int n) { return n == kLanes ? load(p) : load_first(p, n); }
inline void store_group(float* p, VecF a, int n) {
  if (n == kLanes) {
    store(p, a);
  } else {
    store_first(p, a, n);
  }
}

}  // namespace

void adam(const Adam& a) {
  const double step = static_cast<double>(a.step);
  const double m_correction = 1.0 - __builtin_pow(a.beta1, step);
  const double v_correction = 1.0 - __builtin_pow(a.beta2, step);
  const VecF beta1 = splat(static_cast<float>(a.beta1)), beta2 = splat(static_cast<float>(a.beta2));
  const VecF new1 = splat(static_cast<float>(1.0 - a.beta1));
  const VecF new2 = splat(static_cast<float>(1.0 - a.beta2));
  const VecF rate = splat(static_cast<float>(a.rate / m_correction));
  const VecF root_scale = splat(static_cast<float>(1.0 / __builtin_sqrt(v_correction)));
  const VecF epsilon = splat(static_cast<float>(a.epsilon));
  parallel_for(a.n, kChunk, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += kLanes) {
      const int n = end - i < kLanes ? static_cast<int>(end - i) : kLanes;
      const VecF g = load_group(a.gradient.data + i, n);
      const VecF m = beta1 * load_group(a.m.data + i, n) + new1 * g;
      const VecF v = beta2 * load_group(a.v.data + i, n) + (new2 * g) * g;
      const VecF change = rate * m / (sqrt(v) * root_scale + epsilon);
      store_group(a.parameter.data + i, load_group(a.parameter.data + i, n) - change, n);
      store_group(a.m.data + i, m, n);
      store_group(a.v.data + i, v, n);
    }
  });
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q

// Fast Adam step, in place over many tensors, one pass over each one's parameter, gradient, m and v.
// The bias corrections and 1 - beta are worked out in double once; each value's update runs in float32, in
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
  const VecF root_scale = splat(static_cast<float>(1.0 / __builtin_sqrt(v_correction)));
  const VecF epsilon = splat(static_cast<float>(a.epsilon));
  for (int64_t t = 0; t < a.parameters.size; ++t) {
    const VecF rate = splat(static_cast<float>(a.rates.data[t] / m_correction));
    const F32 parameter = a.parameters[t], gradient = a.gradients[t], first = a.m[t], second = a.v[t];
    parallel_for(parameter.size, kChunk, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i += kLanes) {
        const int n = end - i < kLanes ? static_cast<int>(end - i) : kLanes;
        const VecF g = load_group(gradient.data + i, n);
        const VecF m = beta1 * load_group(first.data + i, n) + new1 * g;
        const VecF v = beta2 * load_group(second.data + i, n) + (new2 * g) * g;
        const VecF change = rate * m / (sqrt(v) * root_scale + epsilon);
        store_group(parameter.data + i, load_group(parameter.data + i, n) - change, n);
        store_group(first.data + i, m, n);
        store_group(second.data + i, v, n);
      }
    });
  }
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q

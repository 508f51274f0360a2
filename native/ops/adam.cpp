// One step of Adam (Kingma and Ba, algorithm 1), in place over n values: parameter, m and v are
// read and written. The readable reference: each value's update in double, rounded once on store.
#include <cmath>

#include "../core/ops.hpp"

namespace spr2q {
namespace ops {

void adam(const Adam& a) {
  const double m_correction = 1.0 - std::pow(a.beta1, static_cast<double>(a.step));
  const double v_correction = 1.0 - std::pow(a.beta2, static_cast<double>(a.step));
  for (int64_t i = 0; i < a.n; ++i) {
    const double g = a.gradient.data[i];
    const double m = a.beta1 * a.m.data[i] + (1.0 - a.beta1) * g;
    const double v = a.beta2 * a.v.data[i] + (1.0 - a.beta2) * g * g;
    const double change = a.rate * (m / m_correction) / (std::sqrt(v / v_correction) + a.epsilon);
    a.parameter.data[i] = static_cast<float>(a.parameter.data[i] - change);
    a.m.data[i] = static_cast<float>(m);
    a.v.data[i] = static_cast<float>(v);
  }
}

}  // namespace ops
}  // namespace spr2q

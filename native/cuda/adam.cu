// One step of Adam (Kingma and Ba, algorithm 1), in place, one thread for every value. The two
// corrections are computed once, in double, on the host.
#include <cmath>

#include "device.cuh"

namespace spr2q {
namespace cuda {
namespace {

struct Step {
  float *parameter, *m, *v;
  const float* gradient;
  int64_t n;
  // rate / (1 - beta1^step), 1 / sqrt(1 - beta2^step), and what else the update multiplies by.
  float rate, v_scale, beta1, beta2, rest1, rest2, epsilon;
};

__global__ void __launch_bounds__(kElementBlock) adam_kernel(Step a) {
  for (int64_t i = first_element(); i < a.n; i += element_stride()) {
    const float g = a.gradient[i];
    const float m = fmaf(a.beta1, a.m[i], a.rest1 * g);
    const float v = fmaf(a.beta2, a.v[i], a.rest2 * g * g);
    a.parameter[i] -= a.rate * m / fmaf(sqrtf(v), a.v_scale, a.epsilon);
    a.m[i] = m;
    a.v[i] = v;
  }
}

}  // namespace

void adam(const Adam& a) {
  const double m_correction = 1.0 - std::pow(a.beta1, static_cast<double>(a.step));
  const double v_correction = 1.0 - std::pow(a.beta2, static_cast<double>(a.step));
  const auto single = [](double x) { return static_cast<float>(x); };
  const Step step{a.parameter.data,       a.m.data,
                  a.v.data,               a.gradient.data,
                  a.n,                    single(a.rate / m_correction),
                  single(1.0 / std::sqrt(v_correction)),
                  single(a.beta1),        single(a.beta2),
                  single(1.0 - a.beta1),  single(1.0 - a.beta2),
                  single(a.epsilon)};
  launch(adam_kernel, dim3(element_grid(a.n)), dim3(kElementBlock), 0, step);
}

}  // namespace cuda
}  // namespace spr2q

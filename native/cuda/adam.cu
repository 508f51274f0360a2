// One step of Adam (Kingma and Ba, algorithm 1), in place over many tensors in one launch for every
// table of them; a thread for every value of a block's piece. The two corrections are computed once,
// in double, on the host.
#include <cmath>

#include "table.cuh"

namespace spr2q {
namespace cuda {
namespace {

constexpr int64_t kPiece = 4 * kElementBlock;  // values of a block

struct Moved {
  float *parameter, *m, *v;
  const float* gradient;
  int n;
  float rate;  // rate / (1 - beta1^step)
};
// 1 / sqrt(1 - beta2^step) and what else the update multiplies by.
struct Step {
  float v_scale, beta1, beta2, rest1, rest2, epsilon;
};

__global__ void __launch_bounds__(kElementBlock) adam_kernel(SPR2Q_TABLE(Moved) table, Step a) {
  const int at = entry_of_block(table);
  const Moved& t = table.entries[at];
  const int64_t begin = (static_cast<int64_t>(blockIdx.x) - table.first[at]) * kPiece;
  const int64_t end = begin + kPiece < t.n ? begin + kPiece : t.n;
  for (int64_t i = begin + threadIdx.x; i < end; i += kElementBlock) {
    const float g = t.gradient[i];
    const float m = fmaf(a.beta1, t.m[i], a.rest1 * g);
    const float v = fmaf(a.beta2, t.v[i], a.rest2 * g * g);
    t.parameter[i] -= t.rate * m / fmaf(sqrtf(v), a.v_scale, a.epsilon);
    t.m[i] = m;
    t.v[i] = v;
  }
}

}  // namespace

void adam(const Adam& a) {
  const double m_correction = 1.0 - std::pow(a.beta1, static_cast<double>(a.step));
  const double v_correction = 1.0 - std::pow(a.beta2, static_cast<double>(a.step));
  const auto single = [](double x) { return static_cast<float>(x); };
  const Step step{single(1.0 / std::sqrt(v_correction)), single(a.beta1), single(a.beta2),
                  single(1.0 - a.beta1), single(1.0 - a.beta2), single(a.epsilon)};
  const auto go = [&](const Table<Moved>& table) {
    launch(adam_kernel, dim3(grid_size(table.blocks)), dim3(kElementBlock), 0, table, step);
  };
  TableFiller<Moved, decltype(go)> tables(go);
  for (int64_t t = 0; t < a.parameters.size; ++t) {
    const int64_t n = a.parameters[t].size;
    tables.add({a.parameters[t].data, a.m[t].data, a.v[t].data, a.gradients[t].data,
                static_cast<int>(n), single(a.rates.data[t] / m_correction)},
               divide_up(n, kPiece));
  }
  tables.flush();
}

}  // namespace cuda
}  // namespace spr2q

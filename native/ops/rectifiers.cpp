// A group of rectifiers merged into a weight (Eq. 9): merged(out,in) = weight + sum over experts i
// of gates[i] b[i](out,rank) a[i](rank,in), and the gradients of the sum (Eq. 7, with the gate that
// Eq. 10 adds). The readable reference: double sums, one matrix entry at a time.
#include "../core/ops.hpp"

namespace spr2q {
namespace ops {

static void merge_group(const RectifierGroup& p) {
  for (int64_t o = 0; o < p.out; ++o) {
    for (int64_t i = 0; i < p.in; ++i) {
      double sum = p.weight.data[o * p.in + i];
      for (int64_t e = 0; e < p.experts; ++e) {
        const float* a = p.a.data + e * p.rank * p.in;
        const float* b = p.b.data + (e * p.out + o) * p.rank;
        double product = 0.0;
        for (int64_t r = 0; r < p.rank; ++r) product += static_cast<double>(b[r]) * a[r * p.in + i];
        sum += p.gates.data[e] * product;
      }
      p.merged.data[o * p.in + i] = static_cast<float>(sum);
    }
  }
}

static void merge_group_grad(const RectifierGroupGrad& p) {
  for (int64_t e = 0; e < p.experts; ++e) {
    const float* a = p.a.data + e * p.rank * p.in;
    const float* b = p.b.data + e * p.out * p.rank;
    const double gate = p.gates.data[e];
    double gate_gradient = 0.0;  // <gmerged, b a> = sum over (o, r) of b (gmerged a^T)
    for (int64_t r = 0; r < p.rank; ++r) {
      for (int64_t i = 0; i < p.in; ++i) {
        double sum = 0.0;
        for (int64_t o = 0; o < p.out; ++o) {
          sum += static_cast<double>(b[o * p.rank + r]) * p.gmerged.data[o * p.in + i];
        }
        p.ga.data[(e * p.rank + r) * p.in + i] = static_cast<float>(gate * sum);
      }
      for (int64_t o = 0; o < p.out; ++o) {
        double sum = 0.0;
        for (int64_t i = 0; i < p.in; ++i) {
          sum += static_cast<double>(p.gmerged.data[o * p.in + i]) * a[r * p.in + i];
        }
        p.gb.data[(e * p.out + o) * p.rank + r] = static_cast<float>(gate * sum);
        gate_gradient += b[o * p.rank + r] * sum;
      }
    }
    p.ggates.data[e] = static_cast<float>(gate_gradient);
  }
}

void merge_rectifiers(const MergeRectifiers& a) {
  for (int64_t i = 0; i < a.weight.size; ++i) merge_group(a.group(i));
}
void merge_rectifiers_grad(const MergeRectifiersGrad& a) {
  for (int64_t i = 0; i < a.gmerged.size; ++i) merge_group_grad(a.group(i));
}

}  // namespace ops
}  // namespace spr2q

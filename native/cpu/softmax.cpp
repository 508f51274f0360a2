// Softmax of the gates of a group of rectifiers, too few to be split: rows of a few logits (core/softmax.hpp).
#include "../core/softmax.hpp"
#include "simd.hpp"

namespace spr2q {
namespace SPR2Q_ISA {

void softmax(const Softmax& a) {
  for (int64_t row = 0; row < a.rows; ++row) softmax_row(a, row);
}

void softmax_grad(const SoftmaxGrad& a) {
  for (int64_t row = 0; row < a.rows; ++row) softmax_row_grad(a, row);
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q

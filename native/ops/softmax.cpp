// Softmax of the gates of a group of rectifiers: rows of a few logits (core/softmax.hpp).
#include "../core/softmax.hpp"
#include "../core/ops.hpp"

namespace spr2q {
namespace ops {

void softmax(const Softmax& a) {
  for (int64_t row = 0; row < a.rows; ++row) softmax_row(a, row);
}

void softmax_grad(const SoftmaxGrad& a) {
  for (int64_t row = 0; row < a.rows; ++row) softmax_row_grad(a, row);
}

}  // namespace ops
}  // namespace spr2q

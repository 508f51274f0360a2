// Softmax of the gates of a group of rectifiers: rows of a few logits (core/softmax.hpp).
#include "../core/softmax.hpp"
#include "../core/ops.hpp"

namespace spr2q {
namespace ops {

void softmax(const Softmax& a) {
  for (int64_t i = 0; i < a.x.size; ++i) {
    for (int64_t at = 0; at + a.columns <= a.x[i].size; at += a.columns) {
      softmax_row(a.x[i].data + at, a.y[i].data + at, a.columns);
    }
  }
}

void softmax_grad(const SoftmaxGrad& a) {
  for (int64_t i = 0; i < a.y.size; ++i) {
    for (int64_t at = 0; at + a.columns <= a.y[i].size; at += a.columns) {
      softmax_row_grad(a.y[i].data + at, a.gy[i].data + at, a.gx[i].data + at, a.columns);
    }
  }
}

}  // namespace ops
}  // namespace spr2q

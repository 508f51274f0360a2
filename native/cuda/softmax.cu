// Softmax of rows of a few logits and its gradient, a thread a row, in double as everywhere: a gate
// has four of them, and its bits decide which codes a weight gets.
#include "../core/softmax.hpp"
#include "device.cuh"

namespace spr2q {
namespace cuda {
namespace {

constexpr int kThreads = 64;

__global__ void __launch_bounds__(kThreads) softmax_kernel(Softmax a) {
  for (int64_t row = first_element(); row < a.rows; row += element_stride()) softmax_row(a, row);
}

__global__ void __launch_bounds__(kThreads) softmax_grad_kernel(SoftmaxGrad a) {
  for (int64_t row = first_element(); row < a.rows; row += element_stride()) {
    softmax_row_grad(a, row);
  }
}

}  // namespace

void softmax(const Softmax& a) {
  launch(softmax_kernel, dim3(grid_size(divide_up(a.rows, kThreads))), dim3(kThreads), 0, a);
}
void softmax_grad(const SoftmaxGrad& a) {
  launch(softmax_grad_kernel, dim3(grid_size(divide_up(a.rows, kThreads))), dim3(kThreads), 0, a);
}

}  // namespace cuda
}  // namespace spr2q

// Softmax of rows of a few logits and its gradient, of many tensors in one launch, a thread a row, in
// double as everywhere: a gate has four of them, and its bits decide which codes a weight gets.
#include "../core/softmax.hpp"
#include "table.cuh"

namespace spr2q {
namespace cuda {
namespace {

constexpr int kThreads = 32;  // of a block, which has a tensor's rows to itself

struct Softmaxed {
  const float *x, *gy;  // gy: of a gradient, whose x is the result
  float* y;
  int64_t rows;
};

__global__ void __launch_bounds__(kThreads) softmax_kernel(SPR2Q_TABLE(Softmaxed) table, int columns) {
  const Softmaxed& a = table.entries[blockIdx.x];
  for (int64_t row = threadIdx.x; row < a.rows; row += kThreads) {
    softmax_row(a.x + row * columns, a.y + row * columns, columns);
  }
}

__global__ void __launch_bounds__(kThreads)
softmax_grad_kernel(SPR2Q_TABLE(Softmaxed) table, int columns) {
  const Softmaxed& a = table.entries[blockIdx.x];
  for (int64_t row = threadIdx.x; row < a.rows; row += kThreads) {
    const int64_t at = row * columns;
    softmax_row_grad(a.x + at, a.gy + at, a.y + at, columns);
  }
}

// `rows_of(i)`: what tensor i needs.
template <class RowsOf>
void each_tensor(void (*kernel)(SPR2Q_TABLE(Softmaxed), int), int64_t count, int64_t columns,
                 const RowsOf& rows_of) {
  const auto go = [&](const Table<Softmaxed>& table) {
    launch(kernel, dim3(grid_size(table.blocks)), dim3(kThreads), 0, table,
           static_cast<int>(columns));
  };
  TableFiller<Softmaxed, decltype(go)> tables(go);
  for (int64_t i = 0; i < count; ++i) tables.add(rows_of(i), 1);
  tables.flush();
}

}  // namespace

void softmax(const Softmax& a) {
  each_tensor(softmax_kernel, a.x.size, a.columns, [&](int64_t i) {
    return Softmaxed{a.x[i].data, nullptr, a.y[i].data, a.x[i].size / a.columns};
  });
}
void softmax_grad(const SoftmaxGrad& a) {
  each_tensor(softmax_grad_kernel, a.y.size, a.columns, [&](int64_t i) {
    return Softmaxed{a.y[i].data, a.gy[i].data, a.gx[i].data, a.y[i].size / a.columns};
  });
}

}  // namespace cuda
}  // namespace spr2q

// Softmax of one row of a few logits and its gradient: in double and rounded once, shared by every
// backend, so that only exp() itself may differ between them.
#pragma once
#include <math.h>

#include "ops/rows.hpp"
#include "shared.hpp"

namespace spr2q {

SPR2Q_SHARED void softmax_row(const Softmax& a, int64_t row) {
  const float* x = a.x.data + row * a.columns;
  float* y = a.y.data + row * a.columns;
  double most = x[0], total = 0;
  for (int64_t i = 1; i < a.columns; ++i) most = x[i] > most ? x[i] : most;
  for (int64_t i = 0; i < a.columns; ++i) total += exp(x[i] - most);
  for (int64_t i = 0; i < a.columns; ++i) y[i] = static_cast<float>(exp(x[i] - most) / total);
}

SPR2Q_SHARED void softmax_row_grad(const SoftmaxGrad& a, int64_t row) {
  const float *y = a.y.data + row * a.columns, *gy = a.gy.data + row * a.columns;
  double mean = 0;
  for (int64_t i = 0; i < a.columns; ++i) mean += static_cast<double>(y[i]) * gy[i];
  for (int64_t i = 0; i < a.columns; ++i) {
    a.gx.data[row * a.columns + i] = static_cast<float>(y[i] * (gy[i] - mean));
  }
}

}  // namespace spr2q

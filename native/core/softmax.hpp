// Softmax of one row of a few logits and its gradient: in double and rounded once, shared by every
// backend, so that only exp() itself may differ between them.
#pragma once
#include <math.h>
#include <stdint.h>

#include "shared.hpp"

namespace spr2q {

SPR2Q_SHARED void softmax_row(const float* x, float* y, int64_t columns) {
  double most = x[0], total = 0;
  for (int64_t i = 1; i < columns; ++i) most = x[i] > most ? x[i] : most;
  for (int64_t i = 0; i < columns; ++i) total += exp(x[i] - most);
  for (int64_t i = 0; i < columns; ++i) y[i] = static_cast<float>(exp(x[i] - most) / total);
}

SPR2Q_SHARED void softmax_row_grad(const float* y, const float* gy, float* gx, int64_t columns) {
  double mean = 0;
  for (int64_t i = 0; i < columns; ++i) mean += static_cast<double>(y[i]) * gy[i];
  for (int64_t i = 0; i < columns; ++i) gx[i] = static_cast<float>(y[i] * (gy[i] - mean));
}

}  // namespace spr2q

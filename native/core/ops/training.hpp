// Losses and the optimiser. The rules of reading are in ../ops.hpp.
#pragma once
#include "common.hpp"

namespace spr2q {

// loss(1) = mean |x - target|, gx = sign(x - target)/n (0 at equality).
struct L1Loss {
  F32 x, target, loss, gx;
  int64_t n;
  SPR2Q_FIELDS(x, target, loss, gx, n)
  const char* check() const {
    SPR2Q_NEED(n > 0 && x.size >= n && target.size >= n && gx.size >= n && loss.size >= 1);
    return nullptr;
  }
};
// loss(1) = mean over samples of |x - target|^2 / |target|^2 (each sample has n/batch values), and
// its gradient gx; a sample with target = 0 counts with denominator 1.
struct FeatureLoss {
  F32 x, target, loss, gx;
  int64_t n, batch;
  SPR2Q_FIELDS(x, target, loss, gx, n, batch)
  const char* check() const {
    SPR2Q_NEED(n > 0 && batch > 0 && n % batch == 0 && loss.size >= 1);
    SPR2Q_NEED(x.size >= n && target.size >= n && gx.size >= n);
    return nullptr;
  }
};
// Adam, in place, on any number of tensors, each at its own rate: m = b1 m + (1-b1) g,
// v = b2 v + (1-b2) g^2, parameter -= rate * mhat / (sqrt(vhat) + epsilon), hats by 1 - beta^step,
// step counted from 1. A value's bits do not depend on what else the lists hold.
struct Adam {
  F32List parameters, gradients, m, v;
  Numbers rates;
  int64_t step;
  double beta1, beta2, epsilon;
  SPR2Q_FIELDS(parameters, gradients, m, v, rates, step, beta1, beta2, epsilon)
  const char* check() const {
    SPR2Q_NEED(step >= 1 && rates.size == parameters.size);
    SPR2Q_NEED(gradients.size == parameters.size && m.size == parameters.size);
    SPR2Q_NEED(v.size == parameters.size);
    for (int64_t i = 0; i < parameters.size; ++i) {
      const int64_t n = parameters[i].size;
      SPR2Q_NEED(gradients[i].size >= n && m[i].size >= n && v[i].size >= n);
      SPR2Q_NEED(n <= kMostListed);
    }
    return nullptr;
  }
};

}  // namespace spr2q

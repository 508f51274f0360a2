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
// Adam, in place: m = b1 m + (1-b1) g, v = b2 v + (1-b2) g^2, parameter -= rate * mhat /
// (sqrt(vhat) + epsilon), hats by 1 - beta^step, step counted from 1.
struct Adam {
  F32 parameter, gradient, m, v;
  int64_t n, step;
  double rate, beta1, beta2, epsilon;
  SPR2Q_FIELDS(parameter, gradient, m, v, n, step, rate, beta1, beta2, epsilon)
  const char* check() const {
    SPR2Q_NEED(n >= 0 && step >= 1 && parameter.size >= n && gradient.size >= n);
    SPR2Q_NEED(m.size >= n && v.size >= n);
    return nullptr;
  }
};

}  // namespace spr2q

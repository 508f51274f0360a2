// The two losses of training with their gradients, over n values: the mean absolute error of the
// output (Eq. 6) and the relative squared error of a block's features (Eq. 5, divided by the energy
// of the teacher's features, sample by sample, as the training code has it). Sums run in double.
#include <cmath>

#include "../core/ops.hpp"

namespace spr2q {
namespace ops {

void l1_loss(const L1Loss& a) {
  double sum = 0.0;
  const float share = static_cast<float>(1.0 / static_cast<double>(a.n));
  for (int64_t i = 0; i < a.n; ++i) {
    const double difference = static_cast<double>(a.x.data[i]) - a.target.data[i];
    sum += std::fabs(difference);
    a.gx.data[i] = difference > 0 ? share : difference < 0 ? -share : 0.0f;
  }
  a.loss.data[0] = static_cast<float>(sum / static_cast<double>(a.n));
}

void feature_loss(const FeatureLoss& a) {
  const int64_t size = a.n / a.batch;
  double loss = 0.0;
  for (int64_t sample = 0; sample < a.batch; ++sample) {
    const float* x = a.x.data + sample * size;
    const float* target = a.target.data + sample * size;
    float* gx = a.gx.data + sample * size;
    double error = 0.0, energy = 0.0;
    for (int64_t i = 0; i < size; ++i) {
      const double difference = static_cast<double>(x[i]) - target[i];
      error += difference * difference;
      energy += static_cast<double>(target[i]) * target[i];
    }
    if (energy == 0.0) energy = 1.0;
    loss += error / energy;
    const double factor = 2.0 / (energy * static_cast<double>(a.batch));
    for (int64_t i = 0; i < size; ++i) {
      gx[i] = static_cast<float>(factor * (static_cast<double>(x[i]) - target[i]));
    }
  }
  a.loss.data[0] = static_cast<float>(loss / static_cast<double>(a.batch));
}

}  // namespace ops
}  // namespace spr2q

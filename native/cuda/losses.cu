// The two losses with their gradients. The last block of a sum (sums.cuh) makes the loss of its few
// thousand parts.
#include "sums.cuh"

namespace spr2q {
namespace cuda {
namespace {

// Sum of parts[i * stride], i < count, for every thread of the block.
SPR2Q_DEVICE float sum_of_parts(const float* parts, int64_t count, int64_t stride) {
  Sum sum = {0.0f, 0.0f};
  for (int64_t i = threadIdx.x; i < count; i += kRangeThreads) add_to(sum, parts[i * stride]);
  return block_sum<kRangeThreads>(value_of(sum));
}

struct AbsoluteTerm {
  static constexpr int kOutputs = 1;
  L1Loss a;
  float share;
  __device__ Nothing start() const { return {}; }
  __device__ void add(const Nothing&, int64_t i, Sum* sums) const {
    const float difference = a.x.data[i] - a.target.data[i];
    a.gx.data[i] = difference > 0.0f ? share : difference < 0.0f ? -share : 0.0f;
    add_to(sums[0], fabsf(difference));
  }
  __device__ void finish(const float* parts, int64_t chunks) const {
    const float total = sum_of_parts(parts, chunks, 1);
    if (threadIdx.x == 0) a.loss.data[0] = total / static_cast<float>(a.n);
  }
};

struct SquaredTerm {
  static constexpr int kOutputs = 2;  // |x - target|^2, |target|^2
  FeatureLoss a;
  float* factors;
  __device__ Nothing start() const { return {}; }
  __device__ void add(const Nothing&, int64_t i, Sum* sums) const {
    const float target = a.target.data[i], difference = a.x.data[i] - target;
    add_to(sums[0], difference * difference);
    add_to(sums[1], target * target);
  }
  // loss, and for every sample the factor 2 / (energy * batch) of its gradient.
  __device__ void finish(const float* parts, int64_t chunks) const {
    Sum sum = {0.0f, 0.0f};
    for (int64_t sample = 0; sample < a.batch; ++sample) {
      const float* here = parts + 2 * sample * chunks;
      const float error = sum_of_parts(here, chunks, 2);
      float energy = sum_of_parts(here + 1, chunks, 2);
      if (energy == 0.0f) energy = 1.0f;
      add_to(sum, error / energy);
      if (threadIdx.x == 0) factors[sample] = 2.0f / (energy * static_cast<float>(a.batch));
    }
    if (threadIdx.x == 0) a.loss.data[0] = value_of(sum) / static_cast<float>(a.batch);
  }
};

__global__ void __launch_bounds__(kElementBlock)
feature_grad_kernel(FeatureLoss a, const float* factors) {
  const int64_t size = a.n / a.batch;
  for (int64_t i = first_element(); i < a.n; i += element_stride()) {
    a.gx.data[i] = factors[i / size] * (a.x.data[i] - a.target.data[i]);
  }
}

}  // namespace

void l1_loss(const L1Loss& a) {
  Scratch scratch;
  const float share = static_cast<float>(1.0 / static_cast<double>(a.n));
  range_sums(scratch, AbsoluteTerm{a, share}, a.n, 1);
}

void feature_loss(const FeatureLoss& a) {
  Scratch scratch;
  float* factors = scratch.take<float>(a.batch);
  range_sums(scratch, SquaredTerm{a, factors}, a.n / a.batch, a.batch);
  launch(feature_grad_kernel, dim3(element_grid(a.n)), dim3(kElementBlock), 0, a, factors);
}

}  // namespace cuda
}  // namespace spr2q

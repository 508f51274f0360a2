// The two losses with their gradients. Their sums are made in two stages (sums.cuh); the last one,
// over a few thousand parts at most, is one block's work.
#include "sums.cuh"

namespace spr2q {
namespace cuda {
namespace {

struct AbsoluteTerm {
  static constexpr int kOutputs = 1;
  const float *x, *target;
  float* gx;
  float share;
  __device__ Nothing start() const { return {}; }
  __device__ void add(const Nothing&, int64_t i, Sum* sums) const {
    const float difference = x[i] - target[i];
    gx[i] = difference > 0.0f ? share : difference < 0.0f ? -share : 0.0f;
    add_to(sums[0], fabsf(difference));
  }
};

struct SquaredTerm {
  static constexpr int kOutputs = 2;  // |x - target|^2, |target|^2
  const float *x, *target;
  __device__ Nothing start() const { return {}; }
  __device__ void add(const Nothing&, int64_t i, Sum* sums) const {
    const float difference = x[i] - target[i];
    add_to(sums[0], difference * difference);
    add_to(sums[1], target[i] * target[i]);
  }
};

constexpr int kLastThreads = 256;

// Sum of parts[i * stride], i < count, for every thread of the block.
SPR2Q_DEVICE float sum_of_parts(const float* parts, int64_t count, int64_t stride) {
  Sum sum = {0.0f, 0.0f};
  for (int64_t i = threadIdx.x; i < count; i += kLastThreads) add_to(sum, parts[i * stride]);
  return block_sum<kLastThreads>(value_of(sum));
}

__global__ void __launch_bounds__(kLastThreads)
l1_last_kernel(const float* parts, int64_t count, int64_t n, float* loss) {
  const float total = sum_of_parts(parts, count, 1);
  if (threadIdx.x == 0) loss[0] = total / static_cast<float>(n);
}

// loss, and for every sample the factor 2 / (energy * batch) of its gradient.
__global__ void __launch_bounds__(kLastThreads)
feature_last_kernel(const float* parts, int64_t chunks, int64_t batch, float* factors,
                    float* loss) {
  Sum sum = {0.0f, 0.0f};
  for (int64_t sample = 0; sample < batch; ++sample) {
    const float* here = parts + 2 * sample * chunks;
    const float error = sum_of_parts(here, chunks, 2);
    float energy = sum_of_parts(here + 1, chunks, 2);
    if (energy == 0.0f) energy = 1.0f;
    add_to(sum, error / energy);
    if (threadIdx.x == 0) factors[sample] = 2.0f / (energy * static_cast<float>(batch));
  }
  if (threadIdx.x == 0) loss[0] = value_of(sum) / static_cast<float>(batch);
}

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
  const AbsoluteTerm term{a.x.data, a.target.data, a.gx.data, share};
  const float* parts = range_parts(scratch, term, a.n, 1);
  launch(l1_last_kernel, dim3(1), dim3(kLastThreads), 0, parts, range_chunks(a.n), a.n,
         a.loss.data);
}

void feature_loss(const FeatureLoss& a) {
  Scratch scratch;
  const int64_t size = a.n / a.batch;
  const float* parts = range_parts(scratch, SquaredTerm{a.x.data, a.target.data}, size, a.batch);
  float* factors = scratch.take<float>(a.batch);
  launch(feature_last_kernel, dim3(1), dim3(kLastThreads), 0, parts, range_chunks(size), a.batch,
         factors, a.loss.data);
  launch(feature_grad_kernel, dim3(element_grid(a.n)), dim3(kElementBlock), 0, a, factors);
}

}  // namespace cuda
}  // namespace spr2q

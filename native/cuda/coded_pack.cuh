// The packed form of a coded linear layer, as coded_linear.cu reads it: S, R and constant of every
// output (three arrays of round_up(out, 16) floats), then the weight codes, one a byte, rows padded
// with zeros to a multiple of 4 bytes. One block packs one output row.
#pragma once
#include "device.cuh"

namespace spr2q {
namespace cuda {

constexpr int kPackThreads = 64;

struct PackTarget {
  uint8_t* packed;
  const float *x_lower, *x_upper, *weight_lower, *weight_upper, *bias;
  int64_t in, out, x_bits, weight_bits, x_granularity, weight_granularity;
};

static inline __host__ __device__ int64_t packed_stride(int64_t in) { return (in + 3) / 4 * 4; }
static inline __host__ __device__ int64_t scale_stride(int64_t out) {
  return (out + kPackedWidth - 1) / kPackedWidth * kPackedWidth;
}

// code_of(i): the code of weight (o, i).
template <class CodeOf>
SPR2Q_DEVICE void pack_row(const PackTarget& a, int64_t o, const CodeOf& code_of) {
  const int64_t stride = packed_stride(a.in), outputs = scale_stride(a.out);
  float* scales = reinterpret_cast<float*>(a.packed);
  uint8_t* codes = a.packed + 12 * outputs + o * stride;
  const bool by_column = a.x_granularity == kColumn, by_row = a.weight_granularity == kRow;
  const float x_levels = static_cast<float>((1 << a.x_bits) - 1);
  const float weight_levels = static_cast<float>((1 << a.weight_bits) - 1);
  const float x_range = by_column ? a.x_upper[0] : a.x_upper[0] - a.x_lower[0];
  const float x_step = x_range / x_levels;
  const float lower = a.weight_lower[by_row ? o : 0];
  const float step = (a.weight_upper[by_row ? o : 0] - lower) / weight_levels;
  // In double and added in the reference's order, so that the sum rounds to the reference's float32:
  // the threads make the terms, the first one adds them.
  __shared__ double terms[kPackThreads];
  double folded = 0.0;
  for (int64_t first = 0; first < stride; first += kPackThreads) {
    const int64_t i = first + threadIdx.x;
    const uint8_t code = i < a.in ? code_of(i) : 0;
    if (i < stride) codes[i] = code;
    if (i < a.in) {
      const double weight = static_cast<double>(step) * code + static_cast<double>(lower);
      terms[threadIdx.x] = static_cast<double>(a.x_lower[by_column ? i : 0]) * weight;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      const int64_t here = a.in - first < kPackThreads ? a.in - first : kPackThreads;
      for (int64_t k = 0; k < here; ++k) folded += terms[k];
    }
    __syncthreads();
  }
  if (threadIdx.x != 0) return;
  const double bias = a.bias ? static_cast<double>(a.bias[o]) : 0.0;
  scales[o] = x_step * step;
  scales[outputs + o] = x_step * lower;
  scales[2 * outputs + o] = static_cast<float>(bias + folded);
}

}  // namespace cuda
}  // namespace spr2q

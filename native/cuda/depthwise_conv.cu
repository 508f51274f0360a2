// Depth-wise convolution, its gradients: a thread makes four neighbouring pixels of a row for one
// channel, so that a row of taps is read once for all four (kernel + 3 values a row instead of
// 4 * kernel); channels lie along the warp, so reads are contiguous. The gradient by the input is
// the same walk with the taps mirrored. That of the weight sums over pixels, a row of taps at a
// time.
#include "activations.cuh"
#include "sums.cuh"

namespace spr2q {
namespace cuda {
namespace {

constexpr int kPixels = 4;  // of one thread, side by side

struct Walk {
  const float *x, *weight, *bias;
  float* y;
  int64_t batch, height, width, channels, groups;  // groups of kPixels in a row
  bool mirrored;
};

// kGated: y = x * sigmoid(sum).
template <int kKernel, bool kGated>
__global__ void __launch_bounds__(kElementBlock) walk_kernel(Walk a) {
  constexpr int kReach = kKernel / 2, kRead = kPixels + kKernel - 1, kTaps = kKernel * kKernel;
  const int64_t n = a.batch * a.height * a.groups * a.channels;
  for (int64_t i = first_element(); i < n; i += element_stride()) {
    const int64_t c = i % a.channels, group = i / a.channels % a.groups;
    const int64_t line = i / a.channels / a.groups, row = line % a.height;
    const int64_t first = group * kPixels;
    const float* weight = a.weight + c * kTaps;
    float sums[kPixels];
#pragma unroll
    for (int p = 0; p < kPixels; ++p) sums[p] = a.bias ? a.bias[c] : 0.0f;
#pragma unroll
    for (int dy = 0; dy < kKernel; ++dy) {
      const int64_t from_row = row + dy - kReach;
      if (from_row < 0 || from_row >= a.height) continue;
      const float* from = a.x + (line + dy - kReach) * a.width * a.channels + c;
      float read[kRead];
#pragma unroll
      for (int k = 0; k < kRead; ++k) {
        const int64_t column = first + k - kReach;
        read[k] = column >= 0 && column < a.width ? from[column * a.channels] : 0.0f;
      }
#pragma unroll
      for (int dx = 0; dx < kKernel; ++dx) {
        const int tap = dy * kKernel + dx;
        const float w = weight[a.mirrored ? kTaps - 1 - tap : tap];
#pragma unroll
        for (int p = 0; p < kPixels; ++p) sums[p] = fmaf(w, read[p + dx], sums[p]);
      }
    }
#pragma unroll
    for (int p = 0; p < kPixels; ++p) {
      if (first + p >= a.width) continue;
      const int64_t at = (line * a.width + first + p) * a.channels + c;
      a.y[at] = kGated ? a.x[at] * sigmoid(sums[p]) : sums[p];
    }
  }
}

template <bool kGated>
void walk(const Walk& a, int64_t kernel) {
  const int64_t n = a.batch * a.height * a.groups * a.channels;
  launch(kernel == 3 ? walk_kernel<3, kGated> : walk_kernel<5, kGated>, dim3(element_grid(n)),
         dim3(kElementBlock), 0, a);
}

// Segment r: row r of the taps of gweight, and gbias beside the first.
template <int kKernel>
struct RowTerm {
  static constexpr int kOutputs = kKernel + 1;
  static constexpr bool kFinish = false;
  DepthwiseConvGradWeight a;
  __device__ int64_t start(int64_t row, int64_t) const { return row - kKernel / 2; }
  __device__ void add(int64_t dy, int64_t pixel, int64_t c, Sum* sums) const {
    const float g = a.gy.data[pixel * a.channels + c];
    add_to(sums[kKernel], g);
    const int64_t line = pixel / a.width, row = line % a.height + dy;
    const int64_t column = pixel - line * a.width;
    if (row < 0 || row >= a.height) return;
#pragma unroll
    for (int k = 0; k < kKernel; ++k) {
      const int64_t from = column + k - kKernel / 2;
      if (from < 0 || from >= a.width) continue;
      const int64_t source = pixel + dy * a.width + k - kKernel / 2;
      add_to(sums[k], g * a.x.data[source * a.channels + c]);
    }
  }
  __device__ void store(int64_t row, int output, int64_t c, float sum) const {
    if (output < kKernel) a.gweight.data[(c * kKernel + row) * kKernel + output] = sum;
    else if (row == 0 && a.gbias) a.gbias.data[c] = sum;
  }
};

template <int kKernel>
void grad_weight(const DepthwiseConvGradWeight& a) {
  Scratch scratch;
  column_sums(scratch, RowTerm<kKernel>{a}, a.batch * a.height * a.width, a.channels, kKernel);
}

}  // namespace

void depthwise_conv(const DepthwiseConv& a) {
  walk<false>({a.x.data, a.weight.data, a.bias.data, a.y.data, a.batch, a.height, a.width,
               a.channels, divide_up(a.width, kPixels), false},
              a.kernel);
}

void gated_depthwise_conv(const GatedDepthwiseConv& a) {
  walk<true>({a.x.data, a.weight.data, a.bias.data, a.y.data, a.batch, a.height, a.width,
              a.channels, divide_up(a.width, kPixels), false},
             a.kernel);
}

void depthwise_conv_grad_input(const DepthwiseConvGradInput& a) {
  walk<false>({a.gy.data, a.weight.data, nullptr, a.gx.data, a.batch, a.height, a.width,
               a.channels, divide_up(a.width, kPixels), true},
              a.kernel);
}

void depthwise_conv_grad_weight(const DepthwiseConvGradWeight& a) {
  if (a.kernel == 3) return grad_weight<3>(a);
  return grad_weight<5>(a);
}

}  // namespace cuda
}  // namespace spr2q

// Integer depth-wise convolution on codes. A first, small launch, which a plan needs once, unpacks the
// taps and makes the epilogue constants of every channel and border class (core/coded_depthwise.hpp,
// the functions that every backend shares); the second one walks the pixels, a thread for each value: channels
// lie along the warp, sums over the taps inside the image are exact integers.
#include "../core/coded_depthwise.hpp"
#include "coder.cuh"
#include "device.cuh"

namespace spr2q {
namespace cuda {
namespace {

constexpr int kSetUpThreads = 64;

struct Tables {
  int* codes;        // (channels, taps)
  float2* scales;    // (channels): S, R
  float* constants;  // (row classes, column classes, channels)
};

// A block for every channel.
__global__ void __launch_bounds__(kSetUpThreads) set_up_kernel(CodedDepthwiseConv a, Tables to) {
  const int64_t c = blockIdx.x, taps = a.kernel * a.kernel;
  const int64_t rows = border_class_count(a.height, a.kernel);
  const int64_t columns = border_class_count(a.width, a.kernel);
  int codes[kMaxDepthwiseTaps];
  depthwise_codes(a, c, codes);
  const DepthwiseScales scales = depthwise_scales(a, c);
  if (threadIdx.x == 0) {
    to.scales[c] = make_float2(scales.s, scales.r);
    for (int64_t i = 0; i < taps; ++i) to.codes[c * taps + i] = codes[i];
  }
  for (int64_t i = threadIdx.x; i < rows * columns; i += kSetUpThreads) {
    to.constants[i * a.channels + c] =
        depthwise_constant(a, scales, codes, c, i / columns, i % columns);
  }
}

// Where a value of the convolution goes: to y, or with its factor to codes.
struct ToValue {
  float* y;
  __device__ Grid start() const { return {}; }
  __device__ void put(const Grid&, int64_t i, int64_t, float value) const { y[i] = value; }
};
struct ToCode {
  const float* factor;
  Coder coder;
  __device__ Grid start() const { return grid_of(coder); }
  __device__ void put(const Grid& grid, int64_t i, int64_t c, float value) const {
    coder.codes[i] = code_in(coder, grid, c, factor[i] * value);
  }
};

template <int kKernel, class Target>
__global__ void __launch_bounds__(kElementBlock)
walk_kernel(CodedDepthwiseConv a, Tables from, Target target) {
  constexpr int kReach = kKernel / 2, kTaps = kKernel * kKernel;
  const int64_t n = a.batch * a.height * a.width * a.channels;
  const int64_t classes = border_class_count(a.width, kKernel);
  const Grid grid = target.start();
  for (int64_t i = first_element(); i < n; i += element_stride()) {
    const int64_t c = i % a.channels, pixel = i / a.channels;
    const int64_t column = pixel % a.width, row = pixel / a.width % a.height;
    const int* codes = from.codes + c * kTaps;
    int acc = 0, total = 0;
#pragma unroll
    for (int dy = 0; dy < kKernel; ++dy) {
      const int64_t from_row = row + dy - kReach;
      if (from_row < 0 || from_row >= a.height) continue;
#pragma unroll
      for (int dx = 0; dx < kKernel; ++dx) {
        const int64_t from_column = column + dx - kReach;
        if (from_column < 0 || from_column >= a.width) continue;
        const int x = a.x.data[i + ((dy - kReach) * a.width + dx - kReach) * a.channels];
        acc += x * codes[dy * kKernel + dx];
        total += x;
      }
    }
    const int64_t row_class = border_class(row, a.height, kKernel);
    const int64_t column_class = border_class(column, a.width, kKernel);
    const float constant = from.constants[(row_class * classes + column_class) * a.channels + c];
    const float2 scales = from.scales[c];
    target.put(grid, i, c,
               fmaf(scales.x, static_cast<float>(acc),
                    fmaf(scales.y, static_cast<float>(total), constant)));
  }
}

template <class Target>
void walk(const CodedDepthwiseConv& a, const Target& target) {
  Scratch scratch;
  const int64_t classes =
      border_class_count(a.height, a.kernel) * border_class_count(a.width, a.kernel);
  const int64_t scales = a.channels * static_cast<int64_t>(sizeof(float2));
  const int64_t codes = a.channels * a.kernel * a.kernel * static_cast<int64_t>(sizeof(int));
  const int64_t constants = classes * a.channels * static_cast<int64_t>(sizeof(float));
  const Kept kept = keep(scratch, scales + codes + constants,
                         {a.weight.data, a.x_lower.data, a.x_upper.data, a.weight_lower.data,
                          a.weight_upper.data, a.bias.data});
  uint8_t* at = static_cast<uint8_t*>(kept.data);
  const Tables tables{reinterpret_cast<int*>(at + scales), reinterpret_cast<float2*>(at),
                      reinterpret_cast<float*>(at + scales + codes)};
  if (kept.fresh) {
    launch(set_up_kernel, dim3(grid_size(a.channels)), dim3(kSetUpThreads), 0, a, tables);
  }
  launch(a.kernel == 3 ? walk_kernel<3, Target> : walk_kernel<5, Target>,
         dim3(element_grid(a.batch * a.height * a.width * a.channels)), dim3(kElementBlock), 0, a,
         tables, target);
}

}  // namespace

void coded_depthwise_conv(const CodedDepthwiseConv& a) { walk(a, ToValue{a.y.data}); }

void fused_coded_depthwise_conv(const FusedCodedDepthwiseConv& a) {
  const Coder coder{a.lower.data, a.upper.data, a.codes.data, a.bits, a.granularity == kColumn};
  walk(a.convolution({nullptr, 0}), ToCode{a.factor.data, coder});
}

}  // namespace cuda
}  // namespace spr2q

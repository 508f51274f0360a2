// Integer depth-wise convolution on codes (coded_depthwise.cuh). A first, small launch, which a plan
// needs once, unpacks the taps and makes the epilogue constants of every channel and border class
// (core/coded_depthwise.hpp, the functions that every backend shares); the second one walks the
// pixels, a thread for each value or each four: channels lie along the warp.
#include "coded_depthwise.cuh"

namespace spr2q {
namespace cuda {
namespace {

constexpr int kSetUpThreads = 64;

// A block for every channel.
__global__ void __launch_bounds__(kSetUpThreads)
set_up_kernel(CodedDepthwiseConv a, DepthwiseTables to) {
  const int64_t c = blockIdx.x, taps = a.kernel * a.kernel;
  const int64_t rows = border_class_count(a.height, a.kernel);
  const int64_t columns = border_class_count(a.width, a.kernel);
  int codes[kMaxDepthwiseTaps];
  depthwise_codes(a, c, codes);
  const DepthwiseScales scales = depthwise_scales(a, c);
  if (threadIdx.x == 0) {
    to.s[c] = scales.s;
    to.r[c] = scales.r;
    for (int64_t i = 0; i < taps; ++i) to.codes[i * a.channels + c] = codes[i];
  }
  for (int64_t i = threadIdx.x; i < rows * columns; i += kSetUpThreads) {
    to.constants[i * a.channels + c] =
        depthwise_constant(a, scales, codes, c, i / columns, i % columns);
  }
}

// Where a value of the convolution goes by itself.
struct Values {
  float* y;
  __device__ Grid start() const { return {}; }
  __device__ void put(const Grid&, int64_t i, int64_t, const Channels<1>& value) const {
    y[i] = value.values[0];
  }
  __device__ void put(const Grid&, int64_t i, int64_t, const Channels<4>& y4) const {
    *reinterpret_cast<float4*>(y + i) =
        make_float4(y4.values[0], y4.values[1], y4.values[2], y4.values[3]);
  }
};

template <int kKernel, int kVector, class Target>
__global__ void __launch_bounds__(kElementBlock)
walk_kernel(Depthwise a, int64_t pixels, Target target) {
  const int64_t pieces = a.channels / kVector;
  const Grid grid = target.start();
  for (int64_t i = first_element(); i < pixels * pieces; i += element_stride()) {
    const int64_t pixel = i / pieces, c = (i - pixel * pieces) * kVector;
    target.put(grid, pixel * a.channels + c, c, depthwise_pixel<kKernel, kVector>(a, pixel, c));
  }
}

template <int kKernel, class Target>
void walk(const Depthwise& a, int64_t pixels, bool fours, const Target& target) {
  launch(fours ? walk_kernel<kKernel, 4, Target> : walk_kernel<kKernel, 1, Target>,
         dim3(element_grid(pixels * a.channels / (fours ? 4 : 1))), dim3(kElementBlock), 0, a,
         pixels, target);
}

template <class Target>
void walk(const CodedDepthwiseConv& a, bool fours, const Target& target) {
  Scratch scratch;
  const Depthwise depthwise = depthwise_of(scratch, a);
  const int64_t pixels = a.batch * a.height * a.width;
  if (a.kernel == 3) return walk<3>(depthwise, pixels, fours, target);
  walk<5>(depthwise, pixels, fours, target);
}

// All that tables are made of.
std::vector<const void*> sources(const CodedDepthwiseConv& a) {
  return {a.weight.data, a.x_lower.data, a.x_upper.data, a.weight_lower.data, a.weight_upper.data,
          a.bias.data};
}

}  // namespace

bool keeps_tables(const CodedDepthwiseConv& a) { return keeps(sources(a)); }

Depthwise depthwise_of(Scratch& scratch, const CodedDepthwiseConv& a) {
  const int64_t columns = border_class_count(a.width, a.kernel);
  const int64_t classes = border_class_count(a.height, a.kernel) * columns;
  const int64_t scales = round_up(a.channels, 4), codes = round_up(a.channels * a.kernel * a.kernel, 4);
  const int64_t values = codes + 2 * scales + classes * a.channels;
  const Kept kept = keep(scratch, values * int64_t{sizeof(float)}, sources(a));
  float* at = static_cast<float*>(kept.data);
  const DepthwiseTables tables{static_cast<int*>(kept.data), at + codes, at + codes + scales,
                               at + codes + 2 * scales};
  if (kept.fresh) {
    launch(set_up_kernel, dim3(grid_size(a.channels)), dim3(kSetUpThreads), 0, a, tables);
  }
  return {a.x.data, tables, a.height, a.width, a.channels, columns};
}

void coded_depthwise_conv(const CodedDepthwiseConv& a) {
  walk(a, in_fours(a.channels, a.x.data, a.y.data, nullptr), Values{a.y.data});
}

void fused_coded_depthwise_conv(const FusedCodedDepthwiseConv& a) {
  const GatedCodes target = gated_codes_of(a);
  walk(a.convolution({nullptr, 0}), in_fours(a.channels, a.x.data, a.factor.data, a.codes.data),
       target);
}

}  // namespace cuda
}  // namespace spr2q

// Depth-wise convolution and its gradients, fast: x, y (batch, height, width, channels), weight
// (channels, kernel, kernel), zero padding kernel/2. One vector holds neighbouring channels of one
// pixel; a block of kPixels output pixels keeps its sums and, per kernel row, kPixels + kernel - 1
// input pixels in registers, so that a tap costs less than half a load. Columns outside the image
// read as zero vectors, which leaves every sum as it is; rows outside are skipped. The gradient of
// the input is the same convolution with the kernel mirrored.
#include "activations.hpp"
#include "sweep.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

#if defined(__AVX512F__) || defined(SPR2Q_NEON)
constexpr int kPixels = 8;  // 8 sums + 12 inputs + 1 weight of 32 registers
#else
constexpr int kPixels = 4;  // 4 sums + 8 inputs + 1 weight of 16 registers
#endif
constexpr int64_t kRows = 8;       // image rows per thread chunk of a convolution
constexpr int64_t kGradRows = 16;  // image rows per partial sum of the weight gradient

enum Slot { kWeights = 0, kPartials = 1 };

// The three widths of a channel vector: a whole one, a part of one, and with AVX-512 a half (the
// last 8 of 24 channels), which costs half of a whole one where 512-bit units are split in two.
struct AllLanes {
  VecF v;
  static AllLanes zero(int) { return {splat(0.0f)}; }
  static AllLanes load(const float* p, int) { return {SPR2Q_ISA::load(p)}; }
  void store(float* p, int) const { SPR2Q_ISA::store(p, v); }
  void add_product(AllLanes a, AllLanes b) { v = fma(a.v, b.v, v); }
  void add(AllLanes a) { v = v + a.v; }
};
struct SomeLanes {
  VecF v;
  static SomeLanes zero(int) { return {splat(0.0f)}; }
  static SomeLanes load(const float* p, int lanes) { return {load_first(p, lanes)}; }
  void store(float* p, int lanes) const { store_first(p, v, lanes); }
  void add_product(SomeLanes a, SomeLanes b) { v = fma(a.v, b.v, v); }
  void add(SomeLanes a) { v = v + a.v; }
};
#if defined(__AVX512F__)
struct HalfLanes {
  __m256 v;
  static HalfLanes zero(int) { return {_mm256_setzero_ps()}; }
  static HalfLanes load(const float* p, int) { return {_mm256_loadu_ps(p)}; }
  void store(float* p, int) const { _mm256_storeu_ps(p, v); }
  void add_product(HalfLanes a, HalfLanes b) { v = _mm256_fmadd_ps(a.v, b.v, v); }
  void add(HalfLanes a) { v = _mm256_add_ps(v, a.v); }
};
#endif

// Calls body(Vector type, first channel, lanes) for the vectors that cover the channels.
template <class Body>
void for_each_vector(int64_t channels, const Body& body) {
  int64_t c = 0;
  for (; c + kLanes <= channels; c += kLanes) body(AllLanes(), c, kLanes);
#if defined(__AVX512F__)
  if (c + 8 <= channels) {
    body(HalfLanes(), c, 8);
    c += 8;
  }
#endif
  if (c < channels) body(SomeLanes(), c, static_cast<int>(channels - c));
}

struct Image {
  int64_t height, width, channels;
  int64_t padded() const { return (channels + kLanes - 1) / kLanes * kLanes; }
};

// Pixels [column, column + count) of an image row; outside [0, width) they are zero. kInside: the
// caller knows that none is outside.
template <class Vector, bool kInside, int kCount>
static inline void load_pixels(const float* row, int64_t column, const Image& image, int lanes,
                               Vector* pixels) {
#pragma GCC unroll 12
  for (int i = 0; i < kCount; ++i) {
    const int64_t at = column + i;
    pixels[i] = kInside || (at >= 0 && at < image.width)
                    ? Vector::load(row + at * image.channels, lanes)
                    : Vector::zero(lanes);
  }
}

// One row of outputs, one vector of channels: x and y point at the channels of the row's first
// pixel, weights at those of the first tap.
struct RowJob {
  const float *x, *weights, *bias;
  float* y;
  int64_t row;
};

template <class Vector, int kKernel, bool kInside>
static inline void conv_block(const RowJob& job, const Image& image, int64_t column, int lanes) {
  constexpr int kPad = kKernel / 2;
  Vector sums[kPixels];
#pragma GCC unroll 8
  for (int p = 0; p < kPixels; ++p) {
    sums[p] = job.bias ? Vector::load(job.bias, lanes) : Vector::zero(lanes);
  }
  for (int i = 0; i < kKernel; ++i) {
    const int64_t shift = i - kPad;
    if (job.row + shift < 0 || job.row + shift >= image.height) continue;
    Vector pixels[kPixels + kKernel - 1];
    load_pixels<Vector, kInside, kPixels + kKernel - 1>(
        job.x + shift * image.width * image.channels, column - kPad, image, lanes, pixels);
#pragma GCC unroll 5
    for (int j = 0; j < kKernel; ++j) {
      const Vector weight = Vector::load(job.weights + (i * kKernel + j) * image.padded(), lanes);
#pragma GCC unroll 8
      for (int p = 0; p < kPixels; ++p) sums[p].add_product(pixels[p + j], weight);
    }
  }
#pragma GCC unroll 8
  for (int p = 0; p < kPixels; ++p) {
    if (kInside || column + p < image.width) {
      sums[p].store(job.y + (column + p) * image.channels, lanes);
    }
  }
}

template <class Vector, int kKernel>
void conv_row(const RowJob& job, const Image& image, int lanes) {
  constexpr int kPad = kKernel / 2;
  for (int64_t column = 0; column < image.width; column += kPixels) {
    if (column >= kPad && column + kPixels + kPad <= image.width) {
      conv_block<Vector, kKernel, true>(job, image, column, lanes);
    } else {
      conv_block<Vector, kKernel, false>(job, image, column, lanes);
    }
  }
}

// weight(channels, taps) -> (taps, padded channels), mirrored or not, missing channels 0.
float* arrange_weights(const float* weight, const Image& image, int64_t taps, bool mirrored) {
  const int64_t padded = image.padded();
  float* arranged = scratch<float>(kWeights, taps * padded);
  for (int64_t tap = 0; tap < taps; ++tap) {
    const int64_t source = mirrored ? taps - 1 - tap : tap;
    for (int64_t c = 0; c < padded; ++c) {
      arranged[tap * padded + c] = c < image.channels ? weight[c * taps + source] : 0.0f;
    }
  }
  return arranged;
}

// y = x * sigmoid(y), while the row is near.
static inline void gate_row(const float* x, float* y, int64_t n) {
  sweep(0, n, [=](int64_t i, auto lanes) {
    VecF rest;
    lanes.store(y + i, lanes.load(x + i) * sigmoid(lanes.load(y + i), rest));
  });
}

template <int kKernel, bool kGated = false>
void convolve(const float* x, const float* weights, const float* bias, float* y, int64_t batch,
              const Image& image) {
  const int64_t row_floats = image.width * image.channels;
  parallel_for(batch * image.height, kRows, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for_each_vector(image.channels, [&](auto vector, int64_t c, int lanes) {
        const RowJob job = {x + r * row_floats + c, weights + c, bias ? bias + c : nullptr,
                            y + r * row_floats + c, r % image.height};
        conv_row<decltype(vector), kKernel>(job, image, lanes);
      });
      if (kGated) gate_row(x + r * row_floats, y + r * row_floats, row_floats);
    }
  });
}

// gy and x point at the channels of the first pixel of the output row and of the input row that
// meet in kernel row i; sums[j] collects tap (i, j) in two interleaved chains.
template <class Vector, int kKernel, bool kInside>
static inline void grad_block(const float* gy, const float* x, const Image& image, int64_t column,
                              int lanes, Vector* sums) {
  Vector pixels[kPixels + kKernel - 1], outputs[kPixels];
  load_pixels<Vector, kInside, kPixels + kKernel - 1>(x, column - kKernel / 2, image, lanes,
                                                      pixels);
  load_pixels<Vector, kInside, kPixels>(gy, column, image, lanes, outputs);
#pragma GCC unroll 8
  for (int p = 0; p < kPixels; ++p) {
#pragma GCC unroll 5
    for (int j = 0; j < kKernel; ++j) {
      sums[2 * j + p % 2].add_product(outputs[p], pixels[p + j]);
    }
  }
}

template <class Vector, int kKernel>
void grad_row(const float* gy, const float* x, const Image& image, int lanes, float* partial) {
  constexpr int kPad = kKernel / 2;
  const int64_t padded = image.padded();
  Vector sums[2 * kKernel];
  for (int j = 0; j < kKernel; ++j) {
    sums[2 * j] = Vector::load(partial + j * padded, lanes);
    sums[2 * j + 1] = Vector::zero(lanes);
  }
  for (int64_t column = 0; column < image.width; column += kPixels) {
    if (column >= kPad && column + kPixels + kPad <= image.width) {
      grad_block<Vector, kKernel, true>(gy, x, image, column, lanes, sums);
    } else {
      grad_block<Vector, kKernel, false>(gy, x, image, column, lanes, sums);
    }
  }
  for (int j = 0; j < kKernel; ++j) {
    sums[2 * j].add(sums[2 * j + 1]);
    sums[2 * j].store(partial + j * padded, lanes);
  }
}

template <class Vector>
void grad_bias_row(const float* gy, const Image& image, int lanes, float* partial) {
  Vector total = Vector::load(partial, lanes);
  for (int64_t column = 0; column < image.width; ++column) {
    total.add(Vector::load(gy + column * image.channels, lanes));
  }
  total.store(partial, lanes);
}

// Sums of one chunk of image rows: partial (kernel*kernel taps, then the bias; padded channels).
template <int kKernel>
void grad_chunk(const DepthwiseConvGradWeight& a, const Image& image, int64_t begin, int64_t end,
                float* partial) {
  const int64_t row_floats = image.width * image.channels, padded = image.padded();
  for (int64_t i = 0; i < (kKernel * kKernel + 1) * padded; ++i) partial[i] = 0.0f;
  for (int64_t r = begin; r < end; ++r) {
    for_each_vector(image.channels, [&](auto vector, int64_t c, int lanes) {
      using Vector = decltype(vector);
      const float* gy = a.gy.data + r * row_floats + c;
      for (int64_t i = 0; i < kKernel; ++i) {
        const int64_t shift = i - kKernel / 2, source = r % image.height + shift;
        if (source < 0 || source >= image.height) continue;
        grad_row<Vector, kKernel>(gy, a.x.data + (r + shift) * row_floats + c, image, lanes,
                                  partial + i * kKernel * padded + c);
      }
      if (a.gbias) {
        grad_bias_row<Vector>(gy, image, lanes, partial + kKernel * kKernel * padded + c);
      }
    });
  }
}

}  // namespace

void depthwise_conv(const DepthwiseConv& a) {
  const Image image = {a.height, a.width, a.channels};
  const float* weights = arrange_weights(a.weight.data, image, a.kernel * a.kernel, false);
  if (a.kernel == 3) convolve<3>(a.x.data, weights, a.bias.data, a.y.data, a.batch, image);
  else convolve<5>(a.x.data, weights, a.bias.data, a.y.data, a.batch, image);
}

void gated_depthwise_conv(const GatedDepthwiseConv& a) {
  const Image image = {a.height, a.width, a.channels};
  const float* weights = arrange_weights(a.weight.data, image, a.kernel * a.kernel, false);
  if (a.kernel == 3) convolve<3, true>(a.x.data, weights, a.bias.data, a.y.data, a.batch, image);
  else convolve<5, true>(a.x.data, weights, a.bias.data, a.y.data, a.batch, image);
}

void depthwise_conv_grad_input(const DepthwiseConvGradInput& a) {
  const Image image = {a.height, a.width, a.channels};
  const float* weights = arrange_weights(a.weight.data, image, a.kernel * a.kernel, true);
  if (a.kernel == 3) convolve<3>(a.gy.data, weights, nullptr, a.gx.data, a.batch, image);
  else convolve<5>(a.gy.data, weights, nullptr, a.gx.data, a.batch, image);
}

void depthwise_conv_grad_weight(const DepthwiseConvGradWeight& a) {
  const Image image = {a.height, a.width, a.channels};
  const int64_t taps = a.kernel * a.kernel, padded = image.padded(), size = (taps + 1) * padded;
  const int64_t rows = a.batch * a.height, chunks = (rows + kGradRows - 1) / kGradRows;
  float* partials = scratch<float>(kPartials, chunks * size + 1);
  parallel_for(rows, kGradRows, [&](int64_t begin, int64_t end) {
    float* partial = partials + begin / kGradRows * size;
    if (a.kernel == 3) grad_chunk<3>(a, image, begin, end, partial);
    else grad_chunk<5>(a, image, begin, end, partial);
  });
  for (int64_t c = 0; c < a.channels; ++c) {
    for (int64_t tap = 0; tap <= taps; ++tap) {
      double total = 0;
      for (int64_t i = 0; i < chunks; ++i) total += partials[i * size + tap * padded + c];
      if (tap < taps) a.gweight.data[c * taps + tap] = static_cast<float>(total);
      else if (a.gbias) a.gbias.data[c] = static_cast<float>(total);
    }
  }
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q

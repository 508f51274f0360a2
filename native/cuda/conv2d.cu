// Convolution of images in token order as one product (gemm.cuh) that never unfolds the image:
// k counts (tap, input channel), and a tap outside the image reads as zero. The gradient by the
// input is the same walk with the taps mirrored; that of the weight sums over pixels in splits.
#include "gemm.cuh"

namespace spr2q {
namespace cuda {
namespace {

// Numbers of pixels and of (tap, channel) pairs fit 32 bits, whose division is several times as
// quick as that of 64; only offsets into the tensors need more.
template <int kKernel>
struct Image {
  int height, width;
  static constexpr int kTaps = kKernel * kKernel;
  // Pixel that `tap` of output pixel `pixel` reads, or -1 outside the image.
  __device__ int64_t source(int64_t pixel, int tap) const {
    const int at = static_cast<int>(pixel), line = at / width;
    const int dy = tap / kKernel - kKernel / 2, dx = tap % kKernel - kKernel / 2;
    const int y = line % height + dy, x = at - line * width + dx;
    return y >= 0 && y < height && x >= 0 && x < width ? at + dy * width + dx : -1;
  }
};

// k = tap * channels + channel.
struct Place {
  int tap;
  int64_t channel;
};
SPR2Q_DEVICE Place place_of(int64_t k, int64_t channels) {
  const int at = static_cast<int>(k), count = static_cast<int>(channels), tap = at / count;
  return {tap, at - tap * count};
}

template <int kKernel>
struct Forward {
  static constexpr bool kRowsOfA = true, kRowsOfB = true;
  Conv2d c;
  Image<kKernel> image;
  __device__ float a(int64_t m, int64_t k) const {
    const Place at = place_of(k, c.in);
    const int64_t from = image.source(m, at.tap);
    return from < 0 ? 0.0f : c.x.data[from * c.in + at.channel];
  }
  __device__ float b(int64_t k, int64_t n) const {
    const Place at = place_of(k, c.in);
    return c.weight.data[(n * c.in + at.channel) * image.kTaps + at.tap];
  }
  __device__ void store(int64_t m, int64_t n, int64_t, float sum) const {
    c.y.data[m * c.out + n] = c.bias.data ? sum + c.bias.data[n] : sum;
  }
};

// m = pixel, n = input channel, k = (mirrored tap, output channel).
template <int kKernel>
struct GradInput {
  static constexpr bool kRowsOfA = true, kRowsOfB = false;
  Conv2dGradInput c;
  Image<kKernel> image;
  __device__ float a(int64_t m, int64_t k) const {
    const Place at = place_of(k, c.out);
    const int64_t from = image.source(m, at.tap);
    return from < 0 ? 0.0f : c.gy.data[from * c.out + at.channel];
  }
  __device__ float b(int64_t k, int64_t n) const {
    const Place at = place_of(k, c.out);
    return c.weight.data[(at.channel * c.in + n) * image.kTaps + image.kTaps - 1 - at.tap];
  }
  __device__ void store(int64_t m, int64_t n, int64_t, float sum) const {
    c.gx.data[m * c.in + n] = sum;
  }
};

// m = output channel, n = (tap, input channel) and last the bias, k = pixel. Parts of a split as
// gweight lies, (out, in, tap), the bias's (out) behind them.
template <int kKernel>
struct GradWeight {
  static constexpr bool kRowsOfA = false, kRowsOfB = false;
  Conv2dGradWeight c;
  Image<kKernel> image;
  float* parts;
  int64_t columns;
  __device__ float a(int64_t m, int64_t k) const { return c.gy.data[k * c.out + m]; }
  __device__ float b(int64_t k, int64_t n) const {
    const Place at = place_of(n, c.in);
    if (at.tap == image.kTaps) return 1.0f;
    const int64_t from = image.source(k, at.tap);
    return from < 0 ? 0.0f : c.x.data[from * c.in + at.channel];
  }
  __device__ void store(int64_t m, int64_t n, int64_t split, float sum) const {
    float* here = parts + split * c.out * columns;
    const Place at = place_of(n, c.in);
    here[at.tap == image.kTaps ? c.out * c.in * image.kTaps + m
                               : (m * c.in + at.channel) * image.kTaps + at.tap] = sum;
  }
};

constexpr int64_t kMostPixels = int64_t{1} << 31;

// Calls body(Kernel<kKernel>) for the kernel size; a tensor beyond 32-bit pixel numbers is refused.
template <int kKernel>
struct Kernel {
  static constexpr int kSize = kKernel;
};
template <class Args, class Body>
void with_kernel(const Args& a, const Body& body) {
  if (a.batch * a.height * a.width >= kMostPixels) {
    return fail(kCudaBadArgument, "conv2d: 2^31 pixels or more in one call");
  }
  if (a.kernel == 1) return body(Kernel<1>{});
  if (a.kernel == 3) return body(Kernel<3>{});
  return body(Kernel<5>{});
}
template <int kKernel, class Args>
Image<kKernel> image_of(const Args& a) {
  return {static_cast<int>(a.height), static_cast<int>(a.width)};
}

}  // namespace

void conv2d(const Conv2d& a) {
  with_kernel(a, [&](auto kernel) {
    constexpr int kKernel = decltype(kernel)::kSize;
    const int64_t k = a.in * kKernel * kKernel;
    gemm(Forward<kKernel>{a, image_of<kKernel>(a)}, {a.batch * a.height * a.width, a.out, k, k});
  });
}

void conv2d_grad_input(const Conv2dGradInput& a) {
  with_kernel(a, [&](auto kernel) {
    constexpr int kKernel = decltype(kernel)::kSize;
    const int64_t k = a.out * kKernel * kKernel;
    gemm(GradInput<kKernel>{a, image_of<kKernel>(a)}, {a.batch * a.height * a.width, a.in, k, k});
  });
}

void conv2d_grad_weight(const Conv2dGradWeight& a) {
  Scratch scratch;
  const int64_t pixels = a.batch * a.height * a.width;
  const int64_t columns = a.in * a.kernel * a.kernel + (a.gbias ? 1 : 0), n = a.out * columns;
  float* parts = scratch.take<float>(split_count(pixels) * n);
  with_kernel(a, [&](auto kernel) {
    constexpr int kKernel = decltype(kernel)::kSize;
    gemm(GradWeight<kKernel>{a, image_of<kKernel>(a), parts, columns},
         {a.out, columns, pixels, split_of(pixels)});
  });
  const int64_t splits = split_count(pixels), size = a.out * a.in * a.kernel * a.kernel;
  final_sums({{parts, a.gweight.data, splits, size, n},
              {parts + size, a.gbias.data, splits, n - size, n}});
}

}  // namespace cuda
}  // namespace spr2q

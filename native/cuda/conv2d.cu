// Convolution of images in token order as one product (gemm.cuh) that never unfolds the image:
// k counts (tap, input channel), and a tap outside the image reads as zero. The gradient by the
// input is the same walk with the taps mirrored; that of the weight sums over pixels in splits.
#include "gemm.cuh"

namespace spr2q {
namespace cuda {
namespace {

struct Image {
  int64_t height, width, kernel;
  // Pixel that `tap` of output pixel `pixel` reads, or -1 outside the image.
  __device__ int64_t source(int64_t pixel, int64_t tap) const {
    const int64_t dy = tap / kernel - kernel / 2, dx = tap % kernel - kernel / 2;
    const int64_t y = pixel / width % height + dy, x = pixel % width + dx;
    return y >= 0 && y < height && x >= 0 && x < width ? pixel + dy * width + dx : -1;
  }
};

struct Forward {
  static constexpr bool kRowsOfA = true, kRowsOfB = true;
  Conv2d c;
  Image image;
  __device__ float a(int64_t m, int64_t k) const {
    const int64_t from = image.source(m, k / c.in);
    return from < 0 ? 0.0f : c.x.data[from * c.in + k % c.in];
  }
  __device__ float b(int64_t k, int64_t n) const {
    return c.weight.data[(n * c.in + k % c.in) * c.kernel * c.kernel + k / c.in];
  }
  __device__ void store(int64_t m, int64_t n, int64_t, float sum) const {
    c.y.data[m * c.out + n] = c.bias.data ? sum + c.bias.data[n] : sum;
  }
};

// m = pixel, n = input channel, k = (mirrored tap, output channel).
struct GradInput {
  static constexpr bool kRowsOfA = true, kRowsOfB = false;
  Conv2dGradInput c;
  Image image;
  __device__ float a(int64_t m, int64_t k) const {
    const int64_t from = image.source(m, k / c.out);
    return from < 0 ? 0.0f : c.gy.data[from * c.out + k % c.out];
  }
  __device__ float b(int64_t k, int64_t n) const {
    const int64_t taps = c.kernel * c.kernel;
    return c.weight.data[(k % c.out * c.in + n) * taps + taps - 1 - k / c.out];
  }
  __device__ void store(int64_t m, int64_t n, int64_t, float sum) const {
    c.gx.data[m * c.in + n] = sum;
  }
};

// m = output channel, n = (tap, input channel) and last the bias, k = pixel.
struct GradWeight {
  static constexpr bool kRowsOfA = false, kRowsOfB = false;
  Conv2dGradWeight c;
  Image image;
  float* parts;
  int64_t columns;
  __device__ float a(int64_t m, int64_t k) const { return c.gy.data[k * c.out + m]; }
  __device__ float b(int64_t k, int64_t n) const {
    if (n == c.in * c.kernel * c.kernel) return 1.0f;
    const int64_t from = image.source(k, n / c.in);
    return from < 0 ? 0.0f : c.x.data[from * c.in + n % c.in];
  }
  __device__ void store(int64_t m, int64_t n, int64_t split, float sum) const {
    parts[(split * c.out + m) * columns + n] = sum;
  }
};

// (out, tap, in) and the bias column -> gweight(out, in, tap), gbias.
__global__ void __launch_bounds__(kElementBlock)
unpack_kernel(const float* sums, Conv2dGradWeight c, int64_t columns) {
  const int64_t taps = c.kernel * c.kernel;
  for (int64_t i = first_element(); i < c.out * columns; i += element_stride()) {
    const int64_t row = i / columns, column = i % columns;
    const int64_t tap = column / c.in, channel = column % c.in;
    if (tap < taps) c.gweight.data[(row * c.in + channel) * taps + tap] = sums[i];
    else c.gbias.data[row] = sums[i];
  }
}

}  // namespace

void conv2d(const Conv2d& a) {
  const int64_t k = a.in * a.kernel * a.kernel;
  gemm(Forward{a, {a.height, a.width, a.kernel}}, {a.batch * a.height * a.width, a.out, k, k});
}

void conv2d_grad_input(const Conv2dGradInput& a) {
  const int64_t k = a.out * a.kernel * a.kernel;
  gemm(GradInput{a, {a.height, a.width, a.kernel}}, {a.batch * a.height * a.width, a.in, k, k});
}

void conv2d_grad_weight(const Conv2dGradWeight& a) {
  Scratch scratch;
  const int64_t pixels = a.batch * a.height * a.width;
  const int64_t columns = a.in * a.kernel * a.kernel + (a.gbias ? 1 : 0), n = a.out * columns;
  float* parts = scratch.take<float>(split_count(pixels) * n);
  float* sums = scratch.take<float>(n);
  gemm(GradWeight{a, {a.height, a.width, a.kernel}, parts, columns},
       {a.out, columns, pixels, split_of(pixels)});
  final_sum(parts, sums, split_count(pixels), n);
  launch(unpack_kernel, dim3(element_grid(n)), dim3(kElementBlock), 0, sums, a, columns);
}

}  // namespace cuda
}  // namespace spr2q

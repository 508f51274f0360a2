// Convolution of images in token order: x(batch,height,width,in), weight(out,in,kernel,kernel),
// y(batch,height,width,out), stride 1, zero padding kernel/2 (a cross-correlation, as every deep
// learning library has it). The readable reference: one double sum per output value over the taps
// that fall inside the image; a padded pixel is a plain zero and is skipped.
#include "../core/ops.hpp"

namespace spr2q {
namespace ops {
namespace {

bool inside(int64_t i, int64_t size) { return i >= 0 && i < size; }

// Calls body(y', x', tap) for the taps of output pixel (y, x) that lie inside the image.
template <class Body>
void each_tap(int64_t y, int64_t x, int64_t height, int64_t width, int64_t kernel, Body body) {
  for (int64_t ky = 0; ky < kernel; ++ky) {
    for (int64_t kx = 0; kx < kernel; ++kx) {
      const int64_t from_y = y + ky - kernel / 2, from_x = x + kx - kernel / 2;
      if (inside(from_y, height) && inside(from_x, width)) body(from_y, from_x, ky * kernel + kx);
    }
  }
}

}  // namespace

void conv2d(const Conv2d& a) {
  const int64_t taps = a.kernel * a.kernel;
  for (int64_t pixel = 0; pixel < a.batch * a.height * a.width; ++pixel) {
    const int64_t x = pixel % a.width, y = pixel / a.width % a.height;
    const float* image = a.x.data + (pixel - y * a.width - x) * a.in;
    for (int64_t o = 0; o < a.out; ++o) {
      double sum = a.bias ? a.bias.data[o] : 0.0;
      each_tap(y, x, a.height, a.width, a.kernel, [&](int64_t from_y, int64_t from_x, int64_t tap) {
        const float* from = image + (from_y * a.width + from_x) * a.in;
        const float* weight = a.weight.data + o * a.in * taps + tap;
        for (int64_t i = 0; i < a.in; ++i) sum += static_cast<double>(from[i]) * weight[i * taps];
      });
      a.y.data[pixel * a.out + o] = static_cast<float>(sum);
    }
  }
}

// Output pixel p reads input p + tap, so input pixel q is read by outputs q - tap: the same walk
// with the taps mirrored.
void conv2d_grad_input(const Conv2dGradInput& a) {
  const int64_t taps = a.kernel * a.kernel;
  for (int64_t pixel = 0; pixel < a.batch * a.height * a.width; ++pixel) {
    const int64_t x = pixel % a.width, y = pixel / a.width % a.height;
    const float* image = a.gy.data + (pixel - y * a.width - x) * a.out;
    for (int64_t i = 0; i < a.in; ++i) {
      double sum = 0.0;
      each_tap(y, x, a.height, a.width, a.kernel, [&](int64_t from_y, int64_t from_x, int64_t tap) {
        const float* from = image + (from_y * a.width + from_x) * a.out;
        const float* weight = a.weight.data + i * taps + (taps - 1 - tap);
        for (int64_t o = 0; o < a.out; ++o) {
          sum += static_cast<double>(from[o]) * weight[o * a.in * taps];
        }
      });
      a.gx.data[pixel * a.in + i] = static_cast<float>(sum);
    }
  }
}

void conv2d_grad_weight(const Conv2dGradWeight& a) {
  const int64_t pixels = a.batch * a.height * a.width, reach = a.kernel / 2;
  for (int64_t o = 0; o < a.out; ++o) {
    for (int64_t i = 0; i < a.in; ++i) {
      for (int64_t tap = 0; tap < a.kernel * a.kernel; ++tap) {
        const int64_t dy = tap / a.kernel - reach, dx = tap % a.kernel - reach;
        double sum = 0.0;
        for (int64_t pixel = 0; pixel < pixels; ++pixel) {
          const int64_t x = pixel % a.width, y = pixel / a.width % a.height;
          if (!inside(y + dy, a.height) || !inside(x + dx, a.width)) continue;
          sum += static_cast<double>(a.gy.data[pixel * a.out + o]) *
                 a.x.data[(pixel + dy * a.width + dx) * a.in + i];
        }
        a.gweight.data[(o * a.in + i) * a.kernel * a.kernel + tap] = static_cast<float>(sum);
      }
    }
    if (!a.gbias) continue;
    double sum = 0.0;
    for (int64_t pixel = 0; pixel < pixels; ++pixel) sum += a.gy.data[pixel * a.out + o];
    a.gbias.data[o] = static_cast<float>(sum);
  }
}

}  // namespace ops
}  // namespace spr2q

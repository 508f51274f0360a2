// References of the depth-wise convolution and its gradients: stride 1, zero padding kernel/2,
// x, y (batch, height, width, channels), weight (channels, kernel, kernel). Each output element is
// summed in double, taps outside the image are skipped.
#include "../core/ops.hpp"

namespace spr2q {
namespace ops {
namespace {

// Calls visit(pixel, source, tap) for every output pixel and every tap of it inside the image.
template <class Shape, class Visit>
void for_each_tap(const Shape& a, int64_t pixel, Visit visit) {
  const int64_t pad = a.kernel / 2, column = pixel % a.width, row = pixel / a.width % a.height;
  for (int64_t i = 0; i < a.kernel; ++i) {
    const int64_t source_row = row + i - pad;
    if (source_row < 0 || source_row >= a.height) continue;
    for (int64_t j = 0; j < a.kernel; ++j) {
      const int64_t source_column = column + j - pad;
      if (source_column < 0 || source_column >= a.width) continue;
      visit(pixel + (i - pad) * a.width + j - pad, i * a.kernel + j);
    }
  }
}

template <class Shape>
int64_t pixels(const Shape& a) {
  return a.batch * a.height * a.width;
}

}  // namespace

void depthwise_conv(const DepthwiseConv& a) {
  const int64_t taps = a.kernel * a.kernel;
  for (int64_t pixel = 0; pixel < pixels(a); ++pixel) {
    for (int64_t c = 0; c < a.channels; ++c) {
      double total = a.bias ? a.bias.data[c] : 0.0;
      for_each_tap(a, pixel, [&](int64_t source, int64_t tap) {
        total += static_cast<double>(a.weight.data[c * taps + tap]) *
                 a.x.data[source * a.channels + c];
      });
      a.y.data[pixel * a.channels + c] = static_cast<float>(total);
    }
  }
}

void sigmoid_gate(const SigmoidGate&);

void gated_depthwise_conv(const GatedDepthwiseConv& a) {
  depthwise_conv({a.x, a.weight, a.bias, a.y, a.batch, a.height, a.width, a.channels, a.kernel});
  sigmoid_gate({a.x, a.y, a.y, a.batch * a.height * a.width * a.channels});
}

// Input pixel p meets output pixel p + shift through the mirrored tap: the taps of p, mirrored.
void depthwise_conv_grad_input(const DepthwiseConvGradInput& a) {
  const int64_t taps = a.kernel * a.kernel;
  for (int64_t pixel = 0; pixel < pixels(a); ++pixel) {
    for (int64_t c = 0; c < a.channels; ++c) {
      double total = 0;
      for_each_tap(a, pixel, [&](int64_t source, int64_t tap) {
        total += static_cast<double>(a.weight.data[c * taps + taps - 1 - tap]) *
                 a.gy.data[source * a.channels + c];
      });
      a.gx.data[pixel * a.channels + c] = static_cast<float>(total);
    }
  }
}

void depthwise_conv_grad_weight(const DepthwiseConvGradWeight& a) {
  const int64_t taps = a.kernel * a.kernel;
  for (int64_t c = 0; c < a.channels; ++c) {
    double weight[25] = {}, bias = 0;
    for (int64_t pixel = 0; pixel < pixels(a); ++pixel) {
      const double gy = a.gy.data[pixel * a.channels + c];
      bias += gy;
      for_each_tap(a, pixel, [&](int64_t source, int64_t tap) {
        weight[tap] += gy * a.x.data[source * a.channels + c];
      });
    }
    for (int64_t tap = 0; tap < taps; ++tap) {
      a.gweight.data[c * taps + tap] = static_cast<float>(weight[tap]);
    }
    if (a.gbias) a.gbias.data[c] = static_cast<float>(bias);
  }
}

}  // namespace ops
}  // namespace spr2q

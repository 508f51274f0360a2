// Reference of the integer depth-wise convolution. x codes (batch, height, width, channels), packed
// weight codes per channel; the sums over the taps inside the image are exact integers, and the
// float32 epilogue is the one that ops.hpp fixes, so every backend returns these very bits.
#include <cmath>

#include <cstddef>
#include <vector>

#include "../core/coded_depthwise.hpp"

namespace spr2q {
namespace ops {

void coded_depthwise_conv(const CodedDepthwiseConv& a) {
  const int64_t pad = a.kernel / 2;
  for (int64_t c = 0; c < a.channels; ++c) {
    int codes[kMaxDepthwiseTaps];
    depthwise_codes(a, c, codes);
    const DepthwiseScales scales = depthwise_scales(a, c);
    for (int64_t pixel = 0; pixel < a.batch * a.height * a.width; ++pixel) {
      const int64_t column = pixel % a.width, row = pixel / a.width % a.height;
      const int64_t row_class = border_class(row, a.height, a.kernel);
      const int64_t column_class = border_class(column, a.width, a.kernel);
      int64_t top, bottom, left, right, acc = 0, total = 0;
      border_taps(row_class, a.height, a.kernel, &top, &bottom);
      border_taps(column_class, a.width, a.kernel, &left, &right);
      for (int64_t i = top; i < bottom; ++i) {
        for (int64_t j = left; j < right; ++j) {
          const int64_t source = pixel + (i - pad) * a.width + j - pad;
          const int64_t x = a.x.data[source * a.channels + c];
          acc += x * codes[i * a.kernel + j];
          total += x;
        }
      }
      const float constant = depthwise_constant(a, scales, codes, c, row_class, column_class);
      a.y.data[pixel * a.channels + c] =
          std::fmaf(scales.s, static_cast<float>(acc),
                    std::fmaf(scales.r, static_cast<float>(total), constant));
    }
  }
}

void multiply(const Multiply&);
void quantize(const Quantize&);

void fused_coded_depthwise_conv(const FusedCodedDepthwiseConv& a) {
  const int64_t rows = a.batch * a.height * a.width, size = rows * a.channels;
  std::vector<float> memory(static_cast<std::size_t>(size));
  const F32 y = {memory.data(), size};
  coded_depthwise_conv(a.convolution(y));
  multiply({a.factor, y, y, size});
  quantize({y, a.lower, a.upper, a.codes, rows, a.channels, a.granularity, a.bits});
}

}  // namespace ops
}  // namespace spr2q

// Fast convolution in token order without an image of columns: the taps of one kernel row lie side
// by side in memory (pixel x-1, x, x+1 times the channels), so an output row is a panel product of
// `kernel` segments, each kernel*in deep, over rows that overlap (panel.hpp). Input rows are copied
// into rows with zero borders first, one copy per kernel row in a ring of `kernel`; kernel rows off
// the image are left out. The input gradient is the same with mirrored weights; the weight gradient
// is an outer product over the same overlapping rows, with one partial per fixed chunk of rows.
#include "panel.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

constexpr int64_t kImageRowsPerTask = 4;   // image rows a thread takes at once
constexpr int64_t kPixelsPerChunk = 2048;  // pixels of one partial weight gradient, at least
constexpr int64_t kMaxChunks = 64;         // bounds the partials' memory (81 KiB each at 48 -> 48)
constexpr int64_t kPixelsPerSum = 64;      // pixels summed in registers: 12 KiB of gy and x in L1
enum Slot { kPanel, kBias, kPartials, kRing };  // kRing belongs to the thread that runs a task

struct Image {
  const float* data;
  int64_t batch, height, width, channels, kernel;
};

// Copies of the last `kernel` image rows with kernel/2 zero pixels on either side.
class PaddedRows {
 public:
  explicit PaddedRows(const Image& image)
      : image_(image),
        size_((image.width + image.kernel - 1) * image.channels),
        ring_(scratch<float>(kRing, image.kernel * size_)) {
    for (int64_t& row : held_) row = -1;
  }

  // The row `row` of batch * height, from the first padded pixel on.
  const float* get(int64_t row) {
    const int64_t place = row % image_.kernel;
    float* to = ring_ + place * size_;
    if (held_[place] == row) return to;
    held_[place] = row;
    const int64_t border = image_.kernel / 2 * image_.channels, n = image_.width * image_.channels;
    for (int64_t i = 0; i < border; ++i) to[i] = to[border + n + i] = 0.0f;
    std::memcpy(to + border, image_.data + row * n, static_cast<size_t>(n) * sizeof(float));
    return to;
  }

 private:
  const Image& image_;
  int64_t size_;
  float* ring_;
  int64_t held_[kMaxSegments];
};

// y = bias + image * panel; the panel is (kernel, kernel, channels, padded(out)).
void convolve(const Image& image, const float* panel, const float* bias, float* y, int64_t out) {
  const int64_t depth = image.kernel * image.channels, width = padded(out);
  parallel_for(image.batch * image.height, kImageRowsPerTask, [&](int64_t begin, int64_t end) {
    PaddedRows padded_rows(image);
    for (int64_t row = begin; row < end; ++row) {
      PanelProduct p;
      p.segment_count = 0;
      for (int64_t ky = 0; ky < image.kernel; ++ky) {
        const int64_t shift = ky - image.kernel / 2, from_y = row % image.height + shift;
        if (from_y < 0 || from_y >= image.height) continue;
        p.segments[p.segment_count++] = {padded_rows.get(row + shift), panel + ky * depth * width};
      }
      p.depth = depth;
      p.row_step = image.channels;
      p.width = width;
      p.bias = bias;
      p.y = y + row * image.width * out;
      p.rows = image.width;
      p.columns = out;
      panel_product<false>(p);
    }
  });
}

}  // namespace

void conv2d(const Conv2d& a) {
  const int64_t taps = a.kernel * a.kernel, width = padded(a.out);
  float* panel = scratch<float>(kPanel, taps * a.in * width);
  for (int64_t tap = 0; tap < taps; ++tap) {
    pack_panel(panel + tap * a.in * width, a.weight.data + tap, a.in, a.out, taps, a.in * taps);
  }
  float* bias = nullptr;
  if (a.bias) {
    bias = scratch<float>(kBias, width);
    pack_panel(bias, a.bias.data, 1, a.out, 0, 1);
  }
  const Image image = {a.x.data, a.batch, a.height, a.width, a.in, a.kernel};
  convolve(image, panel, bias, a.y.data, a.out);
}

void conv2d_grad_input(const Conv2dGradInput& a) {
  const int64_t taps = a.kernel * a.kernel, width = padded(a.in);
  float* panel = scratch<float>(kPanel, taps * a.out * width);
  for (int64_t tap = 0; tap < taps; ++tap) {
    pack_panel(panel + tap * a.out * width, a.weight.data + (taps - 1 - tap), a.out, a.in,
               a.in * taps, taps);
  }
  const Image image = {a.gy.data, a.batch, a.height, a.width, a.out, a.kernel};
  convolve(image, panel, nullptr, a.gx.data, a.in);
}

void conv2d_grad_weight(const Conv2dGradWeight& a) {
  const int64_t image_rows = a.batch * a.height, taps = a.kernel * a.kernel;
  const int64_t columns = a.kernel * a.in, width = padded(columns);
  const int64_t matrix = a.out * width, size = a.kernel * matrix + a.out;  // weights, then bias
  int64_t chunk = (image_rows + kMaxChunks - 1) / kMaxChunks;
  if (chunk * a.width < kPixelsPerChunk) chunk = (kPixelsPerChunk + a.width - 1) / a.width;
  const int64_t chunks = (image_rows + chunk - 1) / chunk;
  float* partials = scratch<float>(kPartials, chunks * size + 1);
  std::memset(partials, 0, static_cast<size_t>(chunks * size) * sizeof(float));
  const Image image = {a.x.data, a.batch, a.height, a.width, a.in, a.kernel};
  parallel_for(image_rows, chunk, [&](int64_t begin, int64_t end) {
    float* partial = partials + begin / chunk * size;
    PaddedRows padded_rows(image);
    for (int64_t row = begin; row < end; ++row) {
      const float* gy_row = a.gy.data + row * a.width * a.out;
      for (int64_t ky = 0; ky < a.kernel; ++ky) {
        const int64_t shift = ky - a.kernel / 2, from_y = row % a.height + shift;
        if (from_y < 0 || from_y >= a.height) continue;
        const float* x_row = padded_rows.get(row + shift);
        for (int64_t x = 0; x < a.width; x += kPixelsPerSum) {
          const int64_t pixels = a.width - x < kPixelsPerSum ? a.width - x : kPixelsPerSum;
          outer_product({gy_row + x * a.out, a.out, x_row + x * a.in, a.in,
                         partial + ky * matrix, width, pixels, a.out, columns});
        }
      }
      if (a.gbias) add_column_sums(partial + a.kernel * matrix, gy_row, a.width, a.out);
    }
  });
  for (int64_t o = 0; o < a.out; ++o) {
    for (int64_t i = 0; i < a.in; ++i) {
      for (int64_t tap = 0; tap < taps; ++tap) {
        const int64_t at = tap / a.kernel * matrix + o * width + tap % a.kernel * a.in + i;
        float sum = 0.0f;
        for (int64_t c = 0; c < chunks; ++c) sum += partials[c * size + at];
        a.gweight.data[(o * a.in + i) * taps + tap] = sum;
      }
    }
    if (!a.gbias) continue;
    float sum = 0.0f;
    for (int64_t c = 0; c < chunks; ++c) sum += partials[c * size + a.kernel * matrix + o];
    a.gbias.data[o] = sum;
  }
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q

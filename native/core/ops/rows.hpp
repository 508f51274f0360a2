// Rows and elements: norms, activations, slices, permutations, pixels. The rules of reading are in ../ops.hpp.
#pragma once
#include "common.hpp"

namespace spr2q {

// y = (x - mean) / sqrt(variance + 1e-5) * weight + bias over the channels of each row.
struct LayerNorm {
  F32 x, weight, bias, y;
  int64_t rows, channels;
  SPR2Q_FIELDS(x, weight, bias, y, rows, channels)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && channels > 0);
    SPR2Q_NEED(x.size >= rows * channels && y.size >= rows * channels);
    SPR2Q_NEED(weight.size >= channels && bias.size >= channels);
    return nullptr;
  }
};

struct LayerNormGrad {
  F32 x, weight, gy, gx, gweight, gbias;
  int64_t rows, channels;
  SPR2Q_FIELDS(x, weight, gy, gx, gweight, gbias, rows, channels)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && channels > 0);
    SPR2Q_NEED(x.size >= rows * channels && gy.size >= rows * channels);
    SPR2Q_NEED(gx.size >= rows * channels && weight.size >= channels);
    SPR2Q_NEED(gweight.size >= channels && gbias.size >= channels);
    return nullptr;
  }
};

// Element-wise ops over n values; outputs may alias inputs in Add and Multiply.
#define SPR2Q_ELEMENTWISE(Name, ...)                                  \
  struct Name {                                                       \
    F32 __VA_ARGS__;                                                  \
    int64_t n;                                                        \
    SPR2Q_FIELDS(__VA_ARGS__, n)                                      \
    const char* check() const {                                       \
      for (const F32& view : {__VA_ARGS__}) SPR2Q_NEED(n >= 0 && view.size >= n); \
      return nullptr;                                                 \
    }                                                                 \
  };
SPR2Q_ELEMENTWISE(Gelu, x, y)                             // x/2 (1 + erf(x/sqrt 2)), exact
SPR2Q_ELEMENTWISE(GeluGrad, x, gy, gx)
SPR2Q_ELEMENTWISE(SigmoidGate, x, gate, y)                // x * sigmoid(gate)
SPR2Q_ELEMENTWISE(SigmoidGateGrad, x, gate, gy, gx, ggate)
SPR2Q_ELEMENTWISE(Multiply, a, b, y)
SPR2Q_ELEMENTWISE(Add, a, b, y)
SPR2Q_ELEMENTWISE(NegativeExp, x, y)                      // -exp(x); its gradient is y * gy

// y = factor * x.
struct Scale {
  F32 x, y;
  int64_t n;
  double factor;
  SPR2Q_FIELDS(x, y, n, factor)
  const char* check() const {
    SPR2Q_NEED(n >= 0 && x.size >= n && y.size >= n);
    return nullptr;
  }
};

// y(rows,channels) = scale(channels) * x + a.
struct ScaleAdd {
  F32 x, scale, a, y;
  int64_t rows, channels;
  SPR2Q_FIELDS(x, scale, a, y, rows, channels)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && channels > 0 && scale.size >= channels);
    SPR2Q_NEED(x.size >= rows * channels && a.size >= rows * channels);
    SPR2Q_NEED(y.size >= rows * channels);
    return nullptr;
  }
};

// gx = scale * gy, gscale = column sums of x * gy; the gradient of `a` is gy itself.
struct ScaleAddGrad {
  F32 x, scale, gy, gx, gscale;
  int64_t rows, channels;
  SPR2Q_FIELDS(x, scale, gy, gx, gscale, rows, channels)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && channels > 0 && scale.size >= channels && gscale.size >= channels);
    SPR2Q_NEED(x.size >= rows * channels && gy.size >= rows * channels);
    SPR2Q_NEED(gx.size >= rows * channels);
    return nullptr;
  }
};

// y(rows,count) = columns start ... start+count-1 of x(rows,columns).
struct SliceColumns {
  F32 x, y;
  int64_t rows, columns, start, count;
  SPR2Q_FIELDS(x, y, rows, columns, start, count)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && start >= 0 && count > 0 && start + count <= columns);
    SPR2Q_NEED(x.size >= rows * columns && y.size >= rows * count);
    return nullptr;
  }
};

// Writes gy into those columns of gx and zeros into the others.
struct SliceColumnsGrad {
  F32 gy, gx;
  int64_t rows, columns, start, count;
  SPR2Q_FIELDS(gy, gx, rows, columns, start, count)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && start >= 0 && count > 0 && start + count <= columns);
    SPR2Q_NEED(gx.size >= rows * columns && gy.size >= rows * count);
    return nullptr;
  }
};

// y(columns,rows) = x(rows,columns)^T.
struct Transpose {
  F32 x, y;
  int64_t rows, columns;
  SPR2Q_FIELDS(x, y, rows, columns)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && columns > 0);
    SPR2Q_NEED(x.size >= rows * columns && y.size >= rows * columns);
    return nullptr;
  }
};

// y[i] = x[index[i]] / y[index[i]] = x[i] for `rows` rows of a permutation: a plan calls with some
// rows of the index and all of x (or y). Entries outside x (or y) are refused by skipping the row.
struct GatherRows {
  F32 x;
  I32 index;
  F32 y;
  int64_t rows, channels;
  SPR2Q_FIELDS(x, index, y, rows, channels)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && channels > 0 && index.size >= rows);
    SPR2Q_NEED(x.size >= rows * channels && y.size >= rows * channels);
    return nullptr;
  }
};
struct ScatterRows {
  F32 x;
  I32 index;
  F32 y;
  int64_t rows, channels;
  SPR2Q_FIELDS(x, index, y, rows, channels)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && channels > 0 && index.size >= rows);
    SPR2Q_NEED(x.size >= rows * channels && y.size >= rows * channels);
    return nullptr;
  }
};

// x(batch,height,width,channels) -> y(batch,padded_height,padded_width,channels), mirrored below and
// right, minus mean(channels). Row height+i repeats row height-1-i (reflect = 0: the edge comes
// twice) or row height-2-i (reflect = 1: it comes once); columns likewise.
struct PadImage {
  F32 x, mean, y;
  int64_t batch, height, width, padded_height, padded_width, channels, reflect;
  SPR2Q_FIELDS(x, mean, y, batch, height, width, padded_height, padded_width, channels, reflect)
  const char* check() const {
    SPR2Q_NEED(batch > 0 && height > 0 && width > 0 && channels > 0 && mean.size >= channels);
    SPR2Q_NEED(reflect == 0 || reflect == 1);
    SPR2Q_NEED(padded_height >= height && padded_height <= 2 * height - reflect);
    SPR2Q_NEED(padded_width >= width && padded_width <= 2 * width - reflect);
    SPR2Q_NEED(x.size >= batch * height * width * channels);
    SPR2Q_NEED(y.size >= batch * padded_height * padded_width * channels);
    return nullptr;
  }
};

constexpr int64_t kMostScale = 64;  // keeps products with its square within 64 bits
// x(batch,height,width,channels*scale^2) -> y(batch,out_height,out_width,channels), cropped top
// left, plus mean(channels): y[Y,X,c] = x[Y/s, X/s, c*s*s + (Y%s)*s + X%s] + mean[c].
struct PixelShuffle {
  F32 x, mean, y;
  int64_t batch, height, width, channels, scale, out_height, out_width;
  SPR2Q_FIELDS(x, mean, y, batch, height, width, channels, scale, out_height, out_width)
  const char* check() const {
    SPR2Q_NEED(batch > 0 && scale >= 1 && scale <= kMostScale && channels > 0 && mean.size >= channels);
    SPR2Q_NEED(height > 0 && width > 0 && out_height >= 0 && out_width >= 0);
    SPR2Q_NEED(out_height <= height * scale && out_width <= width * scale);
    SPR2Q_NEED(x.size >= batch * height * width * channels * scale * scale);
    SPR2Q_NEED(y.size >= batch * out_height * out_width * channels);
    return nullptr;
  }
};
// gx gets zeros where the crop dropped pixels.
struct PixelShuffleGrad {
  F32 gy, gx;
  int64_t batch, height, width, channels, scale, out_height, out_width;
  SPR2Q_FIELDS(gy, gx, batch, height, width, channels, scale, out_height, out_width)
  const char* check() const {
    SPR2Q_NEED(batch > 0 && scale >= 1 && scale <= kMostScale && channels > 0);
    SPR2Q_NEED(height > 0 && width > 0 && out_height >= 0 && out_width >= 0);
    SPR2Q_NEED(out_height <= height * scale && out_width <= width * scale);
    SPR2Q_NEED(gx.size >= batch * height * width * channels * scale * scale);
    SPR2Q_NEED(gy.size >= batch * out_height * out_width * channels);
    return nullptr;
  }
};

// y(rows,columns) = softmax of each row of x, in double: for the few logits of a gate.
struct Softmax {
  F32List x, y;
  int64_t columns;
  SPR2Q_FIELDS(x, y, columns)
  const char* check() const {
    SPR2Q_NEED(columns > 0 && x.size == y.size);
    for (int64_t i = 0; i < x.size; ++i) {
      SPR2Q_NEED(y[i].size >= x[i].size && x[i].size <= kMostListed);
    }
    return nullptr;
  }
};
// gx = y (gy - sum y gy), given the results y, by the same rows.
struct SoftmaxGrad {
  F32List y, gy, gx;
  int64_t columns;
  SPR2Q_FIELDS(y, gy, gx, columns)
  const char* check() const {
    SPR2Q_NEED(columns > 0 && gy.size == y.size && gx.size == y.size);
    for (int64_t i = 0; i < y.size; ++i) {
      SPR2Q_NEED(gy[i].size >= y[i].size && gx[i].size >= y[i].size && y[i].size <= kMostListed);
    }
    return nullptr;
  }
};

}  // namespace spr2q

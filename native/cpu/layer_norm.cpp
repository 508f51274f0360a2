// Fast layer normalisation and its gradient; shapes and formulas as in native/ops/layer_norm.cpp.
#include "norm_rows.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

constexpr int64_t kForwardRows = 512;    // rows per chunk: 96 KB at 48 channels
constexpr int64_t kBackwardRows = 256;   // rows per chunk and per partial sum of gweight, gbias

// sums: weight gradients in its first `vectors` vectors, bias gradients in the next ones.
template <int kVectors, bool kTail>
static void differentiate(const LayerNormGrad& a, const RowShape& shape, int64_t begin,
                          int64_t end, float* sums) {
  const int vectors = kVectors > 0 ? kVectors : shape.vectors;
  const float share = 1.0f / static_cast<float>(shape.channels);
  float *weight_sums = sums, *bias_sums = sums + vectors * kLanes;
  std::memset(sums, 0, sizeof(float) * 2 * kLanes * static_cast<size_t>(vectors));
  for (int64_t row = begin; row < end; ++row) {
    const float *x = a.x.data + row * shape.channels, *gy = a.gy.data + row * shape.channels;
    float* gx = a.gx.data + row * shape.channels;
    const Moments m = moments<kTail>(x, vectors, shape);
    VecF total = splat(0.0f), product = splat(0.0f);
    for (int i = 0; i < vectors; ++i) {
      const VecF h = (load_vector<kTail>(x, i, vectors, shape) - m.mean) * m.reciprocal;
      const VecF up = load_vector<kTail>(gy, i, vectors, shape);
      const VecF g = up * load_vector<kTail>(a.weight.data, i, vectors, shape);
      total = total + g;
      product = fma(g, h, product);
      store(weight_sums + i * kLanes, fma(up, h, load(weight_sums + i * kLanes)));
      store(bias_sums + i * kLanes, up + load(bias_sums + i * kLanes));
    }
    const VecF mean_g = splat(sum(total) * share), slope = splat(sum(product) * -share);
    for (int i = 0; i < vectors; ++i) {
      const VecF h = (load_vector<kTail>(x, i, vectors, shape) - m.mean) * m.reciprocal;
      const VecF g = load_vector<kTail>(gy, i, vectors, shape) *
                     load_vector<kTail>(a.weight.data, i, vectors, shape);
      store_vector<kTail>(gx, m.reciprocal * fma(h, slope, g - mean_g), i, vectors, shape);
    }
  }
}

template <int kVectors>
static void run(const LayerNormGrad& a, const RowShape& shape, int64_t begin, int64_t end,
                float* sums) {
  if (shape.last == kLanes) return differentiate<kVectors, false>(a, shape, begin, end, sums);
  differentiate<kVectors, true>(a, shape, begin, end, sums);
}

}  // namespace

void layer_norm(const LayerNorm& a) {
  const RowShape shape = row_shape(a.channels);
  parallel_for(a.rows, kForwardRows, [&](int64_t begin, int64_t end) {
    normalise_rows(a, shape, begin, end);
  });
}

void layer_norm_grad(const LayerNormGrad& a) {
  const RowShape shape = row_shape(a.channels);
  const int64_t chunks = (a.rows + kBackwardRows - 1) / kBackwardRows;
  const int64_t width = 2 * static_cast<int64_t>(shape.vectors) * kLanes;
  float* partials = scratch<float>(0, (chunks > 0 ? chunks : 1) * width);
  parallel_for(a.rows, kBackwardRows, [&](int64_t begin, int64_t end) {
    float* sums = partials + begin / kBackwardRows * width;
    switch (shape.vectors) {
      case 2: return run<2>(a, shape, begin, end, sums);
      case 3: return run<3>(a, shape, begin, end, sums);
      case 4: return run<4>(a, shape, begin, end, sums);
      case 6: return run<6>(a, shape, begin, end, sums);
      default: return run<0>(a, shape, begin, end, sums);
    }
  });
  for (int64_t c = 0; c < a.channels; ++c) {
    double weight = 0, bias = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      weight += partials[chunk * width + c];
      bias += partials[chunk * width + width / 2 + c];
    }
    a.gweight.data[c] = static_cast<float>(weight);
    a.gbias.data[c] = static_cast<float>(bias);
  }
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q

// Fast element-wise ops; shapes and formulas as in native/ops/elementwise.cpp. Streams over memory
// with one vector in flight, so all of them run near memory speed.
#include "activations.hpp"
#include "sweep.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
void gelu(const Gelu& a) {
  const float* x = a.x.data;
  float* y = a.y.data;
  sweep_parallel(a.n, [=](int64_t i, auto lanes) {
    lanes.store(y + i, gelu_of(lanes.load(x + i)));
  });
}

void gelu_grad(const GeluGrad& a) {
  const float *x = a.x.data, *gy = a.gy.data;
  float* gx = a.gx.data;
  sweep_parallel(a.n, [=](int64_t i, auto lanes) {
    const VecF v = lanes.load(x + i), zero = splat(0.0f);
    VecF bell, tail;
    normal_tail(absolute_lanes(v), bell, tail);
    const VecF below = where_le(v, zero, tail, splat(1.0f) - tail);
    const VecF inside = max(splat(-kGeluEnd), min(splat(kGeluEnd), v));
    const VecF slope = fma(inside * bell, splat(kInverseSqrt2Pi), below);
    lanes.store(gx + i, slope * lanes.load(gy + i));
  });
}

void sigmoid_gate(const SigmoidGate& a) {
  const float *x = a.x.data, *gate = a.gate.data;
  float* y = a.y.data;
  sweep_parallel(a.n, [=](int64_t i, auto lanes) {
    VecF rest;
    lanes.store(y + i, lanes.load(x + i) * sigmoid(lanes.load(gate + i), rest));
  });
}

void sigmoid_gate_grad(const SigmoidGateGrad& a) {
  const float *x = a.x.data, *gate = a.gate.data, *gy = a.gy.data;
  float *gx = a.gx.data, *ggate = a.ggate.data;
  sweep_parallel(a.n, [=](int64_t i, auto lanes) {
    VecF rest;
    const VecF s = sigmoid(lanes.load(gate + i), rest);
    const VecF through = lanes.load(gy + i) * s;
    const VecF product = through * lanes.load(x + i) * rest;
    lanes.store(gx + i, through);
    lanes.store(ggate + i, product);
  });
}

void multiply(const Multiply& a) {
  const float *p = a.a.data, *q = a.b.data;
  float* y = a.y.data;
  sweep_parallel(a.n, [=](int64_t i, auto lanes) {
    lanes.store(y + i, lanes.load(p + i) * lanes.load(q + i));
  });
}

void add(const Add& a) {
  const float *p = a.a.data, *q = a.b.data;
  float* y = a.y.data;
  sweep_parallel(a.n, [=](int64_t i, auto lanes) {
    lanes.store(y + i, lanes.load(p + i) + lanes.load(q + i));
  });
}

void negative_exp(const NegativeExp& a) {
  const float* x = a.x.data;
  float* y = a.y.data;
  sweep_parallel(a.n, [=](int64_t i, auto lanes) {
    const VecF v = lanes.load(x + i);
    lanes.store(y + i, where_le(v, v, splat(0.0f) - exp(v), v));
  });
}

void scale(const Scale& a) {
  const float factor = static_cast<float>(a.factor);
  const float* x = a.x.data;
  float* y = a.y.data;
  sweep_parallel(a.n, [=](int64_t i, auto lanes) {
    lanes.store(y + i, splat(factor) * lanes.load(x + i));
  });
}

void scale_add(const ScaleAdd& a) {
  const float *x = a.x.data, *other = a.a.data;
  float* y = a.y.data;
  const int64_t channels = a.channels;
  const Pattern scales = repeat(a.scale.data, channels, 0);
  parallel_for(a.rows, pattern_grain(channels), [=](int64_t begin, int64_t end) {
    sweep_pattern(scales.size, begin * channels, end * channels,
                  [=](int64_t i, int64_t j, auto lanes) {
                    lanes.store(y + i, fma(load(scales.data + j), lanes.load(x + i),
                                           lanes.load(other + i)));
                  });
  });
}

void scale_add_grad(const ScaleAddGrad& a) {
  const float *x = a.x.data, *gy = a.gy.data;
  float* gx = a.gx.data;
  const int64_t channels = a.channels, grain = pattern_grain(channels);
  const int64_t chunks = (a.rows + grain - 1) / grain;
  const Pattern scales = repeat(a.scale.data, channels, 0);
  float* partials = scratch<float>(1, (chunks > 0 ? chunks : 1) * scales.size);
  parallel_for(a.rows, grain, [=](int64_t begin, int64_t end) {
    float* sums = partials + begin / grain * scales.size;  // one sum per place of the pattern
    std::memset(sums, 0, static_cast<size_t>(scales.size) * sizeof(float));
    sweep_pattern(scales.size, begin * channels, end * channels,
                  [=](int64_t i, int64_t j, auto lanes) {
                    const VecF g = lanes.load(gy + i);
                    lanes.store(gx + i, load(scales.data + j) * g);
                    store(sums + j, fma(lanes.load(x + i), g, load(sums + j)));
                  });
  });
  for (int64_t c = 0; c < channels; ++c) {
    double total = 0;
    for (int64_t i = c; i < chunks * scales.size; i += channels) total += partials[i];
    a.gscale.data[c] = static_cast<float>(total);
  }
}

void slice_columns(const SliceColumns& a) {
  const float* x = a.x.data + a.start;
  float* y = a.y.data;
  const int64_t columns = a.columns, count = a.count;
  parallel_for(a.rows, pattern_grain(columns), [=](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* from = x + row * columns;
      float* to = y + row * count;
      sweep(0, count, [=](int64_t i, auto lanes) { lanes.store(to + i, lanes.load(from + i)); });
    }
  });
}

void slice_columns_grad(const SliceColumnsGrad& a) {
  const float* gy = a.gy.data;
  float* gx = a.gx.data;
  const int64_t columns = a.columns, count = a.count, start = a.start;
  parallel_for(a.rows, pattern_grain(columns), [=](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* from = gy + row * count;
      float* to = gx + row * columns;
      const auto clear = [=](int64_t i, auto lanes) { lanes.store(to + i, splat(0.0f)); };
      sweep(0, start, clear);
      sweep(start + count, columns, clear);
      sweep(0, count, [=](int64_t i, auto lanes) {
        lanes.store(to + start + i, lanes.load(from + i));
      });
    }
  });
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q

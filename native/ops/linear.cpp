// Linear layers on float32 tokens: y(rows,out) = x(rows,in) weight(out,in)^T + bias(out), its two
// gradients and the plain transpose. The readable reference: every sum runs in double over the
// contracted index from first to last and is rounded to float once, so the result is as good as
// float32 can hold and fast versions can be judged by it.
#include <cstring>

#include "../core/ops.hpp"

namespace spr2q {
namespace ops {

void linear(const Linear& a) {
  for (int64_t row = 0; row < a.rows; ++row) {
    const float* x = a.x.data + row * a.in;
    for (int64_t o = 0; o < a.out; ++o) {
      const float* weight = a.weight.data + o * a.in;
      double sum = a.bias ? a.bias.data[o] : 0.0;
      for (int64_t i = 0; i < a.in; ++i) sum += static_cast<double>(x[i]) * weight[i];
      a.y.data[row * a.out + o] = static_cast<float>(sum);
    }
  }
}

// Packed: the weight as it is, then the bias or zeros.
void pack_linear(const PackLinear& a) {
  float* packed = reinterpret_cast<float*>(a.packed.data);
  std::memcpy(packed, a.weight.data, sizeof(float) * static_cast<size_t>(a.out * a.in));
  for (int64_t o = 0; o < a.out; ++o) packed[a.out * a.in + o] = a.bias ? a.bias.data[o] : 0.0f;
}

void packed_linear(const PackedLinear& a) {
  float* packed = reinterpret_cast<float*>(a.packed.data);
  const F32 weight = {packed, a.out * a.in}, bias = {packed + a.out * a.in, a.out};
  linear({a.x, weight, bias, a.y, a.rows, a.in, a.out});
}

void linear_grad_input(const LinearGradInput& a) {
  for (int64_t row = 0; row < a.rows; ++row) {
    const float* gy = a.gy.data + row * a.out;
    for (int64_t i = 0; i < a.in; ++i) {
      double sum = 0.0;
      for (int64_t o = 0; o < a.out; ++o) {
        sum += static_cast<double>(gy[o]) * a.weight.data[o * a.in + i];
      }
      a.gx.data[row * a.in + i] = static_cast<float>(sum);
    }
  }
}

void linear_grad_weight(const LinearGradWeight& a) {
  for (int64_t o = 0; o < a.out; ++o) {
    for (int64_t i = 0; i < a.in; ++i) {
      double sum = 0.0;
      for (int64_t row = 0; row < a.rows; ++row) {
        sum += static_cast<double>(a.gy.data[row * a.out + o]) * a.x.data[row * a.in + i];
      }
      a.gweight.data[o * a.in + i] = static_cast<float>(sum);
    }
    if (!a.gbias) continue;
    double sum = 0.0;
    for (int64_t row = 0; row < a.rows; ++row) sum += a.gy.data[row * a.out + o];
    a.gbias.data[o] = static_cast<float>(sum);
  }
}

void transpose(const Transpose& a) {
  for (int64_t row = 0; row < a.rows; ++row) {
    for (int64_t column = 0; column < a.columns; ++column) {
      a.y.data[column * a.rows + row] = a.x.data[row * a.columns + column];
    }
  }
}

}  // namespace ops
}  // namespace spr2q

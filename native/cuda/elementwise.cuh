// What the element-wise ops do to one element i, or to column c of a row: the bodies of their own
// kernels (elementwise.cu) and of their places in a segment (segment.cu).
#pragma once
#include "activations.cuh"

namespace spr2q {
namespace cuda {

struct GeluBody {
  Gelu a;
  __device__ void operator()(int64_t i) const {
    a.y.data[i] = gelu_of(a.x.data[i]);
  }
};
struct SigmoidGateBody {
  SigmoidGate a;
  __device__ void operator()(int64_t i) const {
    a.y.data[i] = a.x.data[i] * sigmoid(a.gate.data[i]);
  }
};
struct MultiplyBody {
  Multiply a;
  __device__ void operator()(int64_t i) const { a.y.data[i] = a.a.data[i] * a.b.data[i]; }
};
struct AddBody {
  Add a;
  __device__ void operator()(int64_t i) const { a.y.data[i] = a.a.data[i] + a.b.data[i]; }
};
struct ScaleBody {
  Scale a;
  float factor;
  __device__ void operator()(int64_t i) const { a.y.data[i] = factor * a.x.data[i]; }
};
struct ScaleAddBody {
  ScaleAdd a;
  __device__ void operator()(int64_t row, int64_t c) const {
    const int64_t i = row * a.channels + c;
    a.y.data[i] = fmaf(a.scale.data[c], a.x.data[i], a.a.data[i]);
  }
};
struct SliceBody {
  SliceColumns a;
  __device__ float read(int64_t row, int64_t c) const {
    return a.x.data[row * a.columns + a.start + c];
  }
  __device__ void write(int64_t row, int64_t c, float value) const {
    a.y.data[row * a.count + c] = value;
  }
  __device__ void operator()(int64_t row, int64_t c) const { write(row, c, read(row, c)); }
};

}  // namespace cuda
}  // namespace spr2q

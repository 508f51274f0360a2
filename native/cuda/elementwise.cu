// Element-wise ops and their gradients, one thread for every element (striding where there are
// more than the grid holds): reads and writes are contiguous, memory bandwidth is the bound.
#include "elementwise.cuh"
#include "sums.cuh"

namespace spr2q {
namespace cuda {
namespace {

// One kernel for every op: Body(i) does element i.
template <class Body>
__global__ void __launch_bounds__(kElementBlock) each_kernel(Body body, int64_t n) {
  for (int64_t i = first_element(); i < n; i += element_stride()) body(i);
}

template <class Body>
void each(const Body& body, int64_t n) {
  launch(each_kernel<Body>, dim3(element_grid(n)), dim3(kElementBlock), 0, body, n);
}

// A body of rows and columns for every element.
template <class Body>
struct EachCell {
  Body body;
  int64_t columns;
  __device__ void operator()(int64_t i) const { body(i / columns, i % columns); }
};

struct GeluGradBody {
  GeluGrad a;
  __device__ void operator()(int64_t i) const {
    const float x = a.x.data[i];
    // The density counts as 0 where it is below float32: an infinite x would make inf * 0 of it.
    const float density = fabsf(x) < 14.0f ? kInverseSqrt2Pi * expf(-0.5f * x * x) : 0.0f;
    const float slope = density == 0.0f ? normal_below(x) : fmaf(x, density, normal_below(x));
    a.gx.data[i] = slope * a.gy.data[i];
  }
};
struct SigmoidGateGradBody {
  SigmoidGateGrad a;
  __device__ void operator()(int64_t i) const {
    const float gate = a.gate.data[i], s = sigmoid(gate), gy = a.gy.data[i];
    const float x = a.x.data[i];
    a.gx.data[i] = gy * s;
    a.ggate.data[i] = gy * x * s * sigmoid(-gate);  // 1 - s without cancellation
  }
};
struct NegativeExpBody {
  NegativeExp a;
  __device__ void operator()(int64_t i) const { a.y.data[i] = -expf(a.x.data[i]); }
};
// gx = scale * gy on the way to the sum of x * gy.
struct ScaleTerm {
  static constexpr int kOutputs = 1;
  static constexpr bool kFinish = false;
  ScaleAddGrad a;
  __device__ float start(int64_t, int64_t column) const { return a.scale.data[column]; }
  __device__ void add(float scale, int64_t row, int64_t column, Sum* sums) const {
    const int64_t i = row * a.channels + column;
    const float gy = a.gy.data[i];
    add_to(sums[0], a.x.data[i] * gy);
    a.gx.data[i] = scale * gy;
  }
  __device__ void store(int64_t, int, int64_t column, float sum) const {
    a.gscale.data[column] = sum;
  }
};
struct SliceGradBody {
  SliceColumnsGrad a;
  __device__ void operator()(int64_t i) const {
    const int64_t row = i / a.columns, c = i % a.columns - a.start;
    a.gx.data[i] = c >= 0 && c < a.count ? a.gy.data[row * a.count + c] : 0.0f;
  }
};

}  // namespace

void gelu(const Gelu& a) { each(GeluBody{a}, a.n); }
void gelu_grad(const GeluGrad& a) { each(GeluGradBody{a}, a.n); }
void sigmoid_gate(const SigmoidGate& a) { each(SigmoidGateBody{a}, a.n); }
void sigmoid_gate_grad(const SigmoidGateGrad& a) { each(SigmoidGateGradBody{a}, a.n); }
void multiply(const Multiply& a) { each(MultiplyBody{a}, a.n); }
void add(const Add& a) { each(AddBody{a}, a.n); }
void negative_exp(const NegativeExp& a) { each(NegativeExpBody{a}, a.n); }
void scale(const Scale& a) { each(ScaleBody{a, static_cast<float>(a.factor)}, a.n); }
void scale_add(const ScaleAdd& a) { each(EachCell<ScaleAddBody>{{a}, a.channels}, a.rows * a.channels); }

void scale_add_grad(const ScaleAddGrad& a) {
  Scratch scratch;
  column_sums(scratch, ScaleTerm{a}, a.rows, a.channels);
}

void slice_columns(const SliceColumns& a) { each(EachCell<SliceBody>{{a}, a.count}, a.rows * a.count); }
void slice_columns_grad(const SliceColumnsGrad& a) { each(SliceGradBody{a}, a.rows * a.columns); }

}  // namespace cuda
}  // namespace spr2q

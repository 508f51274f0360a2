// See wrap_plan.hpp. A run holds references to everything that it reads and writes, so dropping
// the handle or the arrays during a run is safe.
#include "wrap_plan.hpp"

#include <memory>
#include <string>

#include "../core/cuda_library.hpp"
#include "../engine/plan.hpp"

namespace spr2q {
namespace {

struct Handle {
  Plan plan;
  Napi::ObjectReference constants;  // keeps the arrays alive that the plan points into
};

Block block_of(const Napi::Env& env, const Napi::Value& value) {
  if (!value.IsTypedArray()) throw Napi::TypeError::New(env, "createPlan: constants must be typed arrays");
  const Napi::TypedArray array = value.As<Napi::TypedArray>();
  uint8_t* base = static_cast<uint8_t*>(array.ArrayBuffer().Data());
  return {base + array.ByteOffset(), static_cast<int64_t>(array.ByteLength())};
}

class PlanRun : public Napi::AsyncWorker {
 public:
  PlanRun(Napi::Env env, const Handle& handle, Napi::Float32Array input,
          Napi::Float32Array output, const volatile int32_t* cancel, double* seconds,
          int64_t noise_tile, Napi::Object kept)
      : Napi::AsyncWorker(env), deferred_(Napi::Promise::Deferred::New(env)), plan_(handle.plan),
        input_(input.Data()), output_(output.Data()), cancel_(cancel), seconds_(seconds),
        noise_tile_(noise_tile) {
    kept_ = Napi::Persistent(kept);
  }

  Napi::Promise promise() const { return deferred_.Promise(); }

  void Execute() override {
    std::string problem;
    finished_ = plan_.run(input_, output_, cancel_, seconds_, noise_tile_, problem);
    if (!problem.empty()) SetError(problem);
  }
  void OnOK() override { deferred_.Resolve(Napi::Boolean::New(Env(), finished_)); }
  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  Napi::Promise::Deferred deferred_;
  const Plan& plan_;
  const float* input_;
  float* output_;
  const volatile int32_t* cancel_;
  double* seconds_;
  int64_t noise_tile_;
  Napi::ObjectReference kept_;
  bool finished_ = false;
};

}  // namespace

Napi::Value create_plan(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 5 || !info[0].IsTypedArray() || !info[1].IsArray()) {
    throw Napi::TypeError::New(env, "createPlan: takes (code, constants, arenaBytes, inputs, outputs)");
  }
  // Its ops report failures to the thread that called them, and a plan calls from many.
  if (&current_backend() == host_cuda_backend()) {
    throw Napi::Error::New(env, "createPlan: plans run on the CPU's backends, not on the CUDA shim");
  }
  const Napi::Float64Array code = info[0].As<Napi::Float64Array>();
  const Napi::Array list = info[1].As<Napi::Array>();
  std::vector<Block> constants;
  for (uint32_t i = 0; i < list.Length(); ++i) constants.push_back(block_of(env, list.Get(i)));
  auto handle = std::make_unique<Handle>();
  const std::string problem = handle->plan.build(
      current_backend(), code.Data(), static_cast<int64_t>(code.ElementLength()), constants,
      info[2].ToNumber().Int64Value(), info[3].ToNumber().Int64Value(),
      info[4].ToNumber().Int64Value());
  if (!problem.empty()) throw Napi::RangeError::New(env, "createPlan: " + problem);
  handle->constants = Napi::Persistent(static_cast<Napi::Object>(list));
  return Napi::External<Handle>::New(env, handle.release(), [](Napi::Env, Handle* h) { delete h; });
}

Napi::Value run_plan(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 6 || !info[0].IsExternal() || !info[1].IsTypedArray() || !info[2].IsTypedArray()) {
    throw Napi::TypeError::New(env, "runPlan: takes (plan, input, output, cancel, seconds, noiseTile)");
  }
  const Handle& handle = *info[0].As<Napi::External<Handle>>().Data();
  const Napi::Float32Array input = info[1].As<Napi::Float32Array>();
  const Napi::Float32Array output = info[2].As<Napi::Float32Array>();
  if (static_cast<int64_t>(input.ElementLength()) < handle.plan.input_floats() ||
      static_cast<int64_t>(output.ElementLength()) < handle.plan.output_floats()) {
    throw Napi::RangeError::New(env, "runPlan: input or output is smaller than the plan's");
  }
  const volatile int32_t* cancel =
      info[3].IsTypedArray() ? info[3].As<Napi::Int32Array>().Data() : nullptr;
  double* seconds = nullptr;
  if (info[4].IsTypedArray()) {
    Napi::Float64Array timed = info[4].As<Napi::Float64Array>();
    if (static_cast<int64_t>(timed.ElementLength()) < handle.plan.steps()) {
      throw Napi::RangeError::New(env, "runPlan: seconds has fewer entries than the plan has steps");
    }
    seconds = timed.Data();
  }
  Napi::Array kept = Napi::Array::New(env);
  for (uint32_t i = 0; i < 5; ++i) kept.Set(i, info[i]);
  const int64_t noise_tile = info[5].ToNumber().Int64Value();
  auto* run = new PlanRun(env, handle, input, output, cancel, seconds, noise_tile, kept);
  const Napi::Promise promise = run->promise();
  run->Queue();
  return promise;
}

}  // namespace spr2q

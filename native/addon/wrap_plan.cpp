// See wrap_plan.hpp. A run holds the plan and references to all arrays that it reads and writes, so
// releasing the handle or dropping the arrays during a run is safe.
#include "wrap_plan.hpp"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../core/cuda_library.hpp"
#include "../engine/plan.hpp"
#include "env.hpp"

namespace spr2q {
namespace {

// What JavaScript holds; the plan itself lives on while jobs run it.
struct Handle {
  std::shared_ptr<const Plan> plan;
  int64_t reported = 0;  // bytes told to the garbage collector
};

void release(Napi::Env env, Handle& handle) {
  handle.plan = nullptr;
  Napi::MemoryManagement::AdjustExternalMemory(env, -handle.reported);
  handle.reported = 0;
}

Block block_of(const Napi::Env& env, const Napi::Value& value) {
  void* data = nullptr;
  // By hand: an array over memory that threads share has no ArrayBuffer to ask.
  if (!value.IsTypedArray() || napi_get_typedarray_info(env, value, nullptr, nullptr, &data, nullptr,
                                                        nullptr) != napi_ok) {
    throw Napi::TypeError::New(env, "createPlan: constants must be typed arrays");
  }
  return {static_cast<uint8_t*>(data), static_cast<int64_t>(value.As<Napi::TypedArray>().ByteLength())};
}

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
  auto plan = std::make_shared<Plan>();
  const std::string problem = plan->build(
      current_backend(), code.Data(), static_cast<int64_t>(code.ElementLength()), constants,
      info[2].ToNumber().Int64Value(), info[3].ToNumber().Int64Value(),
      info[4].ToNumber().Int64Value());
  if (!problem.empty()) throw Napi::RangeError::New(env, "createPlan: " + problem);
  auto* handle = new Handle{plan, plan->held_bytes()};
  Napi::MemoryManagement::AdjustExternalMemory(env, handle->reported);
  return Napi::External<Handle>::New(env, handle, [](Napi::Env owner, Handle* dropped) {
    release(owner, *dropped);
    delete dropped;
  });
}

Napi::Value release_plan(const Napi::CallbackInfo& info) {
  if (info.Length() < 1 || !info[0].IsExternal()) {
    throw Napi::TypeError::New(info.Env(), "releasePlan: takes (plan)");
  }
  release(info.Env(), *info[0].As<Napi::External<Handle>>().Data());
  return info.Env().Undefined();
}

Napi::Value run_plan(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 7 || !info[0].IsExternal() || !info[1].IsTypedArray() || !info[2].IsTypedArray()) {
    throw Napi::TypeError::New(
        env, "runPlan: takes (plan, input, output, cancel, seconds, noiseTile, onProgress)");
  }
  const std::shared_ptr<const Plan> plan = info[0].As<Napi::External<Handle>>().Data()->plan;
  if (!plan) throw Napi::Error::New(env, "runPlan: the plan was released");
  const Napi::Float32Array input = info[1].As<Napi::Float32Array>();
  const Napi::Float32Array output = info[2].As<Napi::Float32Array>();
  if (static_cast<int64_t>(input.ElementLength()) < plan->input_floats() ||
      static_cast<int64_t>(output.ElementLength()) < plan->output_floats()) {
    throw Napi::RangeError::New(env, "runPlan: input or output is smaller than the plan's");
  }
  const int32_t* cancel = info[3].IsTypedArray() ? info[3].As<Napi::Int32Array>().Data() : nullptr;
  double* seconds = nullptr;
  if (info[4].IsTypedArray()) {
    Napi::Float64Array timed = info[4].As<Napi::Float64Array>();
    if (static_cast<int64_t>(timed.ElementLength()) < plan->steps()) {
      throw Napi::RangeError::New(env, "runPlan: seconds has fewer entries than the plan has steps");
    }
    seconds = timed.Data();
  }
  Napi::Array kept = Napi::Array::New(env);
  for (uint32_t i = 0; i < 5; ++i) kept.Set(i, info[i]);
  const int64_t noise_tile = info[5].ToNumber().Int64Value();
  const float* from = input.Data();
  float* to = const_cast<float*>(output.Data());
  auto work = [plan, from, to, seconds, noise_tile](RunWatch& watch) {
    return plan->run(from, to, &watch, seconds, noise_tile);
  };
  auto job = std::make_unique<Job>(env, work, kept, cancel, info[6], plan->arena_bytes());
  const Napi::Promise promise = job->promise();
  Env::of(env).submit(std::move(job));
  return promise;
}

}  // namespace spr2q
